//! The process that boots machines when it is asked to, and passes on what they report.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::kernel::{SERIES, Series};
use super::{Verdict, initramfs};
use crate::harness::{Skip, ovs};

/// How long a machine may be silent, which tells of each test.
const SILENCE: Duration = Duration::from_secs(600);
const SILENT: &str = "says nothing any more";
/// How many machines run at a time.
const AT_A_TIME: usize = 2;
/// What reads and changes the network there, as the real tools do, and Open vSwitch; and what else the tests start.
const TOOLS: &[&str] = &[
    "ip",
    "bridge",
    "nft",
    "tc",
    "ethtool",
    "iptables",
    "ip6tables",
    "ebtables-nft",
    "ping",
    "ovs-appctl",
    "ovs-vsctl",
    "ovs-vswitchd",
    "ovsdb-server",
    "ovsdb-tool",
    "strace",
    "sh",
    "cat",
    "chmod",
    "chroot",
    "dd",
    "env",
    "find",
    "mount",
    "prlimit",
    "setpriv",
    "sleep",
    "timeout",
    "true",
    "unshare",
];
/// What they read: Open vSwitch's tables, and what iptables and ebtables load of themselves.
const FILES: &[&str] = &[ovs::SCHEMA, "/usr/lib/x86_64-linux-gnu/xtables", "/etc/iproute2", "/etc/protocols"];

/// Waits for a line on standard input: the names of the tests, by kernel. Without one there is nothing to do.
pub fn when_asked() -> ExitCode {
    let mut line = String::new();
    if io::stdin().read_line(&mut line).is_err() {
        return ExitCode::FAILURE;
    }
    let wanted: BTreeMap<String, Vec<String>> = serde_json::from_str(&line).unwrap_or_default();
    let queue = Mutex::new(SERIES.iter().filter_map(|series| Some((series, wanted.get(series.name)?))));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((series, tests)) = next() {
                    if let Err(error) = run(series, tests) {
                        let verdict = match error.downcast_ref::<Skip>() {
                            Some(Skip(reason)) => Verdict::Skipped(reason.clone()),
                            None => Verdict::Failed(format!("{error:#}")),
                        };
                        pass_on(series, &verdict.line(None));
                    }
                }
            });
        }
    });
    ExitCode::SUCCESS
}

fn run(series: &Series, tests: &[String]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!(Skip("the kernel to be booted is one for x86-64".to_owned()));
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("vm");
    fs::create_dir_all(&folder)?;
    if Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status().is_err() {
        bail!(Skip("qemu-system-x86_64 cannot be run (Debian's package qemu-system-x86)".to_owned()));
    }
    let kernel = series.fetch()?;
    pass_on(series, &json!({ "version": kernel.version }).to_string());
    let name = |kind: &str| folder.join(format!("{kind}-{}-{}", series.name, std::process::id()));
    let (image, console) = (name("initramfs"), name("console"));
    let mut left = tests.to_vec();
    let mut boot = || -> Result<()> {
        loop {
            let before = left.len();
            initramfs::write(&image, &kernel, TOOLS, FILES, (super::guest::TESTS, &left.join("\n")))
                .context("initramfs")?;
            match relay(series, &mut start(&kernel.image, &image, &console)?, &console, &mut left)? {
                End::Told => return Ok(()),
                // Seen once, and not again with the same test: the next machine goes on from there.
                End::Silent(error) if left.len() < before => eprintln!("{error:#}\nbooted anew"),
                End::Silent(error) => return Err(error),
            }
        }
    };
    let done = boot();
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
        // But without cmpxchg16b, of which QEMU 7.2 leaves wrong flags: Linux 6.12 allocates memory by it, and crashes.
        .args(["-accel", "tcg", "-cpu", "max,cx16=off", "-m", "1024"])
        // The machine's time is what it has executed, at two nanoseconds each, and what it would sleep passes at once: however
        // busy this machine is, nobody there waits in vain.
        .args(["-icount", "shift=1,sleep=off"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", &serial, "-serial", "stdio"])
        // Without the mitigations of processor faults, which cost an emulator a multiple of what they cost a processor.
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(with_suffix(console, ".qemu"))?)
        .spawn()
        .context("qemu-system-x86_64")
}

/// How a machine ended.
enum End {
    /// It told of all tests.
    Told,
    /// It said nothing any more.
    Silent(anyhow::Error),
}

/// Passes on what comes out of the machine until it ends, or says nothing any more; `left` loses the tests that it told of.
fn relay(series: &Series, machine: &mut Child, console: &Path, left: &mut Vec<String>) -> Result<End> {
    let out = machine.stdout.take().context("the machine's serial port")?;
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let mut ended = false;
    let why = loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) if line.trim() == super::guest::END => ended = true,
            Ok(line) => {
                let told = Verdict::of_line(&line).and_then(|it| it.0);
                left.retain(|it| Some(it) != told.as_ref());
                pass_on(series, &line);
            }
            Err(RecvTimeoutError::Disconnected) => break "ended before its tests did",
            Err(RecvTimeoutError::Timeout) => break SILENT,
        }
    };
    // It may have ended by itself.
    let _ = machine.kill();
    machine.wait()?;
    let said = with_suffix(console, ".qemu");
    let (errors, log) = (fs::read(&said).unwrap_or_default(), fs::read(console).unwrap_or_default());
    let _ = fs::remove_file(said);
    if env::var_os("SNF_NETWORK_TEST_CONSOLE").is_some() {
        io::stderr().write_all(&log)?;
    }
    if !ended {
        let log = String::from_utf8_lossy(&log);
        let last: Vec<_> = log.lines().rev().take(30).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n    ");
        let error = anyhow!("the virtual machine {why}: {}\n    {last}", String::from_utf8_lossy(&errors).trim());
        return if why == SILENT { Ok(End::Silent(error)) } else { Err(error) };
    }
    Ok(End::Told)
}

/// The file beside a file: `Path::with_extension` would take away the end of a version.
pub fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Passes on a line of JSON, and of which kernel it is.
fn pass_on(series: &Series, line: &str) {
    let Ok(Value::Object(mut object)) = serde_json::from_str(line) else { return };
    object.insert("kernel".to_owned(), series.name.into());
    // Whoever does not listen any more needs nothing.
    let _ = writeln!(io::stdout(), "{}", Value::Object(object));
}
