//! What the benches share: runs of the program timed from spawn to exit, and where they leave their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const PROGRAM: &str = env!("CARGO_BIN_EXE_snf-network");
/// Longer than the detached process lingers, so that one run's grace period is not another one's wait.
pub const PAUSE: Duration = Duration::from_millis(130);

/// An empty folder of this name.
///
/// # Errors
/// If it cannot be made.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left is of another namespace.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes a settings file, which has the records and the log in this folder; returns its path.
///
/// # Errors
/// If it cannot be written.
pub fn settings(folder: &Path) -> Result<PathBuf> {
    let settings = folder.join("settings");
    fs::write(&settings, format!("STATE_DIR={0}/state\nLOGFILE={0}/log\n", folder.display()))?;
    Ok(settings)
}

/// Runs the program with these settings and Ganeti's variables of a NIC, and returns how long it took, spawn to exit.
///
/// # Errors
/// If it fails.
pub fn run<'a>(
    arguments: &[&str],
    settings: &Path,
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Duration> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("SNF_NETWORK_DEFAULTS", settings).envs(variables).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| PROGRAM)?;
    let taken = started.elapsed();
    ensure!(status.success(), "{arguments:?}: {status}");
    Ok(taken)
}

/// The median; zero of nothing.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
