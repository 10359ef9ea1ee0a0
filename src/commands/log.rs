//! `log`: a line of an administrator's own script in our log, in the form of our own lines.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Call, complain};
use crate::environment::Caller;
use crate::log::Log;
use crate::settings::Settings;

/// Writes the message. As snf-network-log it takes who speaks, a path, as its first argument.
///
/// # Errors
/// If there is no message, or the settings are wrong. That the log cannot be written is only said: what runs this sets up a
/// guest's network, which is worth more.
pub fn run(call: &Call) -> Result<()> {
    let mut words = call.arguments.iter().map(|it| it.to_string_lossy());
    let mut speaker = call.name.to_owned();
    if call.name != "log" {
        let path = words.next().with_context(|| format!("{}: expected who speaks and a message", call.name))?;
        let name = Path::new(&*path).file_name().unwrap_or_default().to_string_lossy();
        speaker = if name.is_empty() { speaker } else { name.into_owned() };
    }
    let message = words.collect::<Vec<_>>().join(" ");
    ensure!(!message.trim().is_empty(), "{}: expected a message", call.name);
    let (settings, warnings) = Settings::load().context(call.name)?;
    let caller = Caller::from_process();
    let interface = caller.interface.clone().unwrap_or_default();
    let instance = caller.instance.clone().unwrap_or_else(|| "-".to_owned());
    let mut log = Log::new([&caller.hook(), &speaker, &interface, &instance]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    log.line(message);
    if let Err(error) = log.try_append_to(&settings.logfile) {
        complain(&format!("{}: LOGFILE: {}: {error}", call.name, settings.logfile.display()));
    }
    Ok(())
}
