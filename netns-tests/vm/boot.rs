//! The process that boots the machine when it is asked to, and passes on what the machine reports.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Verdict, initramfs, kernel};
use crate::harness::{Skip, ovs};

/// How long the machine may take for all its tests, under emulation on a loaded machine.
const LIMIT: Duration = Duration::from_secs(600);
/// What reads and changes bridges there, as the real tools do, and Open vSwitch.
const TOOLS: [&str; 8] =
    ["ip", "bridge", "nft", "ovs-appctl", "ovs-vsctl", "ovs-vswitchd", "ovsdb-server", "ovsdb-tool"];

/// Waits for a line on standard input; without one there is nothing to do.
pub fn when_asked() -> ExitCode {
    if io::stdin().read_line(&mut String::new()).unwrap_or(0) > 0
        && let Err(error) = run()
    {
        let verdict = match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Verdict::Skipped(reason.clone()),
            None => Verdict::Failed(format!("{error:#}")),
        };
        pass_on(&verdict.line(None));
    }
    ExitCode::SUCCESS
}

fn run() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!(Skip("the kernel to be booted is one for x86-64".to_owned()));
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("vm");
    fs::create_dir_all(&folder)?;
    if Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status().is_err() {
        bail!(Skip("qemu-system-x86_64 cannot be run (Debian's package qemu-system-x86)".to_owned()));
    }
    let kernel = kernel::fetch()?;
    let image = folder.join(format!("initramfs-{}", std::process::id()));
    let console = folder.join(format!("console-{}", std::process::id()));
    let done = initramfs::write(&image, &kernel, &TOOLS, &[Path::new(ovs::SCHEMA)])
        .context("initramfs")
        .and_then(|()| relay(&mut start(&kernel.image, &image, &console)?, &console));
    for file in [image, console] {
        // What stays in target/ harms nobody.
        let _ = fs::remove_file(file);
    }
    done
}

fn start(kernel: &Path, initramfs: &Path, console: &Path) -> Result<Child> {
    let serial = format!("file:{}", console.display());
    Command::new("qemu-system-x86_64")
        // Emulated: the same on every machine, whatever its KVM can do.
        .args(["-accel", "tcg", "-cpu", "max", "-m", "1024"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", &serial, "-serial", "stdio"])
        // Without the mitigations of processor faults, which cost an emulator a multiple of what they cost a processor.
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(console.with_extension("qemu"))?)
        .spawn()
        .context("qemu-system-x86_64")
}

/// Passes on what comes out of the machine until it ends, or its time does.
fn relay(machine: &mut Child, console: &Path) -> Result<()> {
    let out = machine.stdout.take().context("the machine's serial port")?;
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let mut ended = false;
    let why = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.trim() == super::guest::END => ended = true,
            Ok(line) => pass_on(&line),
            Err(RecvTimeoutError::Disconnected) => break "ended before its tests did",
            Err(RecvTimeoutError::Timeout) => break "did not end in time",
        }
    };
    // It may have ended by itself.
    let _ = machine.kill();
    machine.wait()?;
    let said = console.with_extension("qemu");
    let (errors, log) = (fs::read(&said).unwrap_or_default(), fs::read(console).unwrap_or_default());
    let _ = fs::remove_file(said);
    if env::var_os("SNF_NETWORK_TEST_CONSOLE").is_some() {
        io::stderr().write_all(&log)?;
    }
    if !ended {
        let log = String::from_utf8_lossy(&log);
        let last: Vec<_> = log.lines().rev().take(30).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n    ");
        bail!("the virtual machine {why}: {}\n    {last}", String::from_utf8_lossy(&errors).trim());
    }
    Ok(())
}

fn pass_on(line: &str) {
    // Whoever does not listen any more needs nothing.
    let _ = writeln!(io::stdout(), "{line}");
}
