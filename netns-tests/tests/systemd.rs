//! Real Debian systems with systemd as PID 1: the package installed, upgraded, removed and purged there, each unit of it, and
//! restarts of what changes the network. One boot runs all scenes, which are scripts; each goes on where the last one ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::package;
use crate::Test;
use crate::harness::topology::Files;
use crate::vm::system::System;

/// With those of all kernels (docs/kernels.md).
pub const ON_DEMAND: &[Test] = &[("systemd::debian_12", debian_12), ("systemd::debian_13", debian_13)];

/// What begins each scene's script.
const COMMON: &str = include_str!("systemd/common.sh");

/// A scene's name and its script.
type Scene = (&'static str, &'static str);

const SCENES: &[Scene] = &[
    ("install", include_str!("systemd/install.sh")),
    ("upgrade", include_str!("systemd/upgrade.sh")),
    ("firewalls", include_str!("systemd/firewalls.sh")),
    ("networks", include_str!("systemd/networks.sh")),
    ("timer", include_str!("systemd/timer.sh")),
    ("uplink", include_str!("systemd/uplink.sh")),
    ("before-reset", include_str!("systemd/before-reset.sh")),
];
const AFTER_RESET: &[Scene] =
    &[("after-reset", include_str!("systemd/after-reset.sh")), ("remove", include_str!("systemd/remove.sh"))];

fn debian_12() -> Result<()> {
    on("bookworm")
}

fn debian_13() -> Result<()> {
    on("trixie")
}

fn on(suite: &str) -> Result<()> {
    let files = Files::new()?;
    let payload = payload(&files.folder)?;
    let mut system = System::boot(suite, &payload)?;
    play(&mut system, SCENES)?;
    system.reset()?;
    play(&mut system, AFTER_RESET)
}

fn play(system: &mut System, scenes: &[Scene]) -> Result<()> {
    scenes
        .iter()
        .try_for_each(|(name, script)| system.run(&format!("{COMMON}{script}")).with_context(|| (*name).to_owned()))
}

/// An archive of what the scenes take: the package, an older one, and the files of contrib/.
fn payload(folder: &Path) -> Result<PathBuf> {
    let new = package::built(folder)?;
    let content = folder.join("payload");
    fs::create_dir(&content)?;
    fs::rename(&new, content.join("new.deb"))?;
    let (tree, control) = (folder.join("older"), folder.join("older/DEBIAN/control"));
    run(Command::new("dpkg-deb").arg("-R").arg(content.join("new.deb")).arg(&tree))?;
    let text = fs::read_to_string(&control)?;
    let older = |line: &str| if line.starts_with("Version: ") { "Version: 0.99-1".to_owned() } else { line.to_owned() };
    fs::write(&control, text.lines().map(|line| older(line) + "\n").collect::<String>())?;
    run(Command::new("dpkg-deb").args(["-b", "--root-owner-group"]).arg(&tree).arg(content.join("old.deb")))?;
    for file in ["systemd", "NetworkManager"] {
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file);
        for entry in fs::read_dir(contrib)?.collect::<Result<Vec<_>, _>>()? {
            fs::copy(entry.path(), content.join(entry.file_name()))?;
        }
    }
    let archive = folder.join("payload.tar");
    run(Command::new("tar").arg("-C").arg(&content).arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
