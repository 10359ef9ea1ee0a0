//! The table of what came of every test on every kernel.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::SERIES;
use super::{Results, Verdict};
use crate::tests;

/// Its file, below target/tmp.
const FILE: &str = "kernels.md";

/// Writes it, and tells where.
pub fn write(results: &Results) -> Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(FILE);
    fs::write(&path, text(results)).with_context(|| path.display().to_string())?;
    println!("test by kernel: {}\n{}", path.display(), counts(results));
    Ok(())
}

fn verdict<'a>(results: &'a Results, series: &str, test: &str) -> Option<&'a Verdict> {
    let of = |test| results.verdicts.get(&(series.to_owned(), test));
    of(Some(test.to_owned())).or_else(|| of(None))
}

/// A line for each kernel: how many tests passed, failed, could not run there, and were left out.
fn counts(results: &Results) -> String {
    let mut text = String::new();
    for series in &SERIES {
        let [mut passed, mut failed, mut skipped, mut left_out, mut unknown] = [0; 5];
        for case in tests::on_kernels() {
            match verdict(results, series.name, &case.name) {
                _ if case.needs.is_some() => left_out += 1,
                Some(Verdict::Passed) => passed += 1,
                Some(Verdict::Failed(_)) => failed += 1,
                Some(Verdict::Skipped(_)) => skipped += 1,
                None => unknown += 1,
            }
        }
        let version = results.versions.get(series.name).map_or("not booted", String::as_str);
        let _infallible = writeln!(
            text,
            "Linux {} ({version}): {passed} passed, {failed} failed, {skipped} could not run there, {left_out} left out, {unknown} not asked for",
            series.name
        );
    }
    text
}

fn text(results: &Results) -> String {
    let mut text = counts(results).replace('\n', "\n\n");
    let heads = SERIES.iter().map(|series| format!(" {} |", series.name)).collect::<String>();
    let _infallible = write!(text, "| test |{heads}\n|---|{}\n", "---|".repeat(SERIES.len()));
    for case in tests::on_kernels() {
        let cells = SERIES.iter().map(|series| {
            let cell = match (case.needs, verdict(results, series.name, &case.name)) {
                (Some(needs), _) => format!("left out: needs {needs}"),
                (None, Some(Verdict::Passed)) => "passed".to_owned(),
                (None, Some(Verdict::Failed(why))) => format!("FAILED: {why}"),
                (None, Some(Verdict::Skipped(why))) => format!("cannot run: {why}"),
                (None, None) => "not asked for".to_owned(),
            };
            format!(" {} |", cell.replace(['\n', '|'], " "))
        });
        let _infallible = writeln!(text, "| {} |{}", case.name, cells.collect::<String>());
    }
    text
}
