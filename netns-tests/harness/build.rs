//! The program under test: the static one, as README has it built, but without the optimisations, which take long and make it no
//! more static.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Skip, setting};

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

/// Where the static program is: also in a virtual machine, which has no cargo.
pub const STATIC: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/static/x86_64-unknown-linux-musl/static/snf-network");
/// The one that cargo builds together with the tests, for this machine's C library.
const DYNAMIC: &str = env!("CARGO_BIN_EXE_snf-network");
/// The variable of the environment that has all tests run on the other one, by the value `glibc`.
const PROGRAM: &str = "SNF_NETWORK_TEST_PROGRAM";

/// The program under test: what users install, unless the test is about the other one.
pub fn executable() -> &'static str {
    if setting::is_glibc() || all_on_glibc() { DYNAMIC } else { STATIC }
}

/// Whether all tests run on the program that is built for this machine's C library, as a sanitised one must be.
pub fn all_on_glibc() -> bool {
    env::var(PROGRAM).is_ok_and(|it| it == "glibc")
}

/// Builds the static program, before any test runs.
///
/// # Errors
/// `Skip` where the target is not installed.
pub fn build_static() -> Result<()> {
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
    ensure!(Path::new(STATIC).is_file(), "{cargo:?} made no {STATIC}");
    Ok(())
}
