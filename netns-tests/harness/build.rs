//! The static program, as README has it built, but without the optimisations, which take long and make it no more static.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

use super::Skip;

/// How README has it built.
const BUILD: &str = "cargo build --release --target x86_64-unknown-linux-musl";
/// A profile of Cargo.toml.
pub const PROFILE: &str = "static";
/// For which target.
pub const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// What cargo calls the target directory.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("static")
}

/// The cargo that runs the tests.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// Builds the program, if no other test has, and tells where it is.
///
/// # Errors
/// `Skip` where the target is not installed.
pub fn static_build() -> Result<PathBuf> {
    // Who comes second waits here and finds nothing left to do.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let readme = include_str!("../../README.md");
    ensure!(readme.contains(&format!("$ {BUILD}\n")) && BUILD.ends_with(TRIPLE), "README does not say {BUILD:?}");
    let mut installed = Command::new("rustc");
    let installed = installed.args(["--print", "target-libdir", "--target", TRIPLE]).output().context("rustc")?;
    if !Path::new(String::from_utf8_lossy(&installed.stdout).trim()).is_dir() {
        bail!(Skip(format!("rustup target add {TRIPLE}")));
    }
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--bin", "snf-network", "--profile", PROFILE, "--target", TRIPLE, "--target-dir"]);
    let output = cargo.arg(folder()).output().context("cargo build")?;
    ensure!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(folder().join(TRIPLE).join(PROFILE).join("snf-network"))
}
