//! A line that the settings of all nodes of a test have: the same test, under another setting.

use std::cell::Cell;

use anyhow::Result;

thread_local! {
    static LINE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs a test whose nodes have this line in their settings; the nodes must be made by the test's own thread.
pub fn under(line: Option<&'static str>, test: fn() -> Result<()>) -> Result<()> {
    LINE.set(line);
    let result = test();
    LINE.set(None);
    result
}

/// The line, with its end, or nothing.
pub fn line() -> String {
    LINE.get().map(|line| format!("{line}\n")).unwrap_or_default()
}
