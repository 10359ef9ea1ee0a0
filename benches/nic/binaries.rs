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
        let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let words = ["build", "--release", "--quiet", "--target", TARGET, "--bin", "snf-network", "--example", "floor"];
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let status = Command::new(cargo).args(words).args(["--manifest-path", manifest]).status().context("cargo")?;
        ensure!(status.success(), "cargo build: {status}");
        let target =
            env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target").to_owned());
        let program = format!("{target}/{TARGET}/release/snf-network");
        let size = std::fs::metadata(&program).with_context(|| program.clone())?.len();
        Ok(Self { floor: format!("{target}/{TARGET}/release/examples/floor"), program, size })
    }
}
