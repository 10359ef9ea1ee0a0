//! What is measured: static musl builds, as users install them, whatever this bench itself was built for.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Paths of the executables.
pub struct Binaries {
    /// snf-network.
    pub program: String,
    /// benches/nic/floor.rs.
    pub floor: String,
    /// The size of snf-network, in bytes.
    pub size: u64,
}

impl Binaries {
    /// Builds them, or finds them built.
    ///
    /// # Errors
    /// If cargo fails.
    pub fn build() -> Result<Self> {
        let target =
            env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target").to_owned());
        Self::build_in(&target, true)
    }

    /// The same with the names of functions, in a folder of their own.
    ///
    /// # Errors
    /// If cargo fails.
    pub fn with_symbols() -> Result<Self> {
        Self::build_in(concat!(env!("CARGO_TARGET_TMPDIR"), "/symbols"), false)
    }

    fn build_in(target: &str, strip: bool) -> Result<Self> {
        let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let words = ["build", "--release", "--quiet", "--target", TARGET, "--bin", "snf-network", "--example", "floor"];
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let mut command = Command::new(cargo);
        command.args(words).args(["--manifest-path", manifest, "--target-dir", target]);
        let status = command.env("CARGO_PROFILE_RELEASE_STRIP", strip.to_string()).status().context("cargo")?;
        ensure!(status.success(), "cargo build: {status}");
        let program = format!("{target}/{TARGET}/release/snf-network");
        let size = std::fs::metadata(&program).with_context(|| program.clone())?.len();
        Ok(Self { floor: format!("{target}/{TARGET}/release/examples/floor"), program, size })
    }
}
