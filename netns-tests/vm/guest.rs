//! Inside the machine: /init, which runs the tests.
#![expect(unsafe_code, reason = "finit_module(2) and reboot(2) have no safe form")]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chown};

use super::{Verdict, tenant};
use crate::harness::{Skip, netns, slower_by};
use crate::tests;

/// Where the modules are.
pub const MODULES: &str = "/modules";
/// The report's last line.
pub const END: &str = "end of report";
/// The second serial port.
pub const REPORT: &str = "/dev/ttyS1";

/// Where the names of the tests are, one a line.
pub const TESTS: &str = "/tests";
/// Before Linux 6.12 this module switches connection tracking on in every network namespace (nf_conncount_init), which reassembles
/// fragments: they would not arrive as the tests sent them. So it is loaded for the tests of this theme only, the last ones.
const LATE: (&str, &str) = ("openvswitch", "ovs::");
/// The argument that makes this binary run the one test that is named, in namespaces of its own.
pub const TEST: &str = "--one-test";
/// A folder that is not of root's alone.
const MAIL: &str = "/var/mail";
/// Where a test's verdict is.
const VERDICT: &str = "/tmp/verdict";
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(900);
/// How many times slower everything is, about: tests have so much more patience, and do so much less of what they do many times.
const SLOWER: u32 = 6;

/// Runs the tests and switches the machine off.
pub fn init() -> ExitCode {
    if let Err(error) = run() {
        // Goes to the console, whose last lines the other side shows.
        eprintln!("/init: {error:#}");
    }
    // SAFETY: the command switches the machine off; there is nothing to lose in it.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    // If it did not, the kernel panics now, and QEMU ends then too.
    ExitCode::FAILURE
}

fn run() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>).with_context(|| place)?;
    }
    // As Debian's base-files has it: root's, but another group can write it.
    fs::create_dir_all(MAIL)?;
    chown(MAIL, None, Some(8.into()))?;
    fs::set_permissions(MAIL, Permissions::from_mode(0o2775))?;
    let mut modules = fs::read_dir(MODULES)?.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
    modules.sort();
    let is_late = |module: &PathBuf| module.to_string_lossy().contains(LATE.0);
    let (late, modules): (Vec<_>, _) = modules.into_iter().partition(is_late);
    modules.iter().try_for_each(|it| load(it))?;
    if Path::new(tenant::SETUP).exists() {
        return tenant::serve();
    }
    let mut report = OpenOptions::new().write(true).open(REPORT).context(REPORT)?;
    let tests = fs::read_to_string(TESTS)?;
    let (last, first): (Vec<_>, Vec<_>) = tests.lines().partition(|name| name.starts_with(LATE.1));
    for (place, name) in first.iter().chain(&last).enumerate() {
        if place == first.len() {
            late.iter().try_for_each(|it| load(it))?;
        }
        let start = Instant::now();
        let verdict = attempt(name)?;
        eprintln!("{name}: {:.1} s: {verdict:?}", start.elapsed().as_secs_f32());
        writeln!(report, "{}", verdict.line(Some(name)))?;
    }
    writeln!(report, "{END}")?;
    // Until the port has sent all of it, the machine must stay on.
    // SAFETY: tcdrain(3) takes a file descriptor, which is open.
    let drained = unsafe { libc::tcdrain(report.as_raw_fd()) };
    ensure!(drained == 0, "tcdrain: {}", io::Error::last_os_error());
    Ok(())
}

/// Lets a process of its own run a test: what it leaves behind, or that it never ends, is no matter for the next one.
fn attempt(name: &str) -> Result<Verdict> {
    // The last test's.
    let _ = fs::remove_file(VERDICT);
    let child = Command::new("/init").args([TEST, name]).process_group(0).spawn().context("/init")?;
    let process = Pid::from_raw(child.id().cast_signed());
    let deadline = Instant::now() + LIMIT;
    // Nobody else takes leave of the processes whose parents have ended.
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..) if ended == process => break,
            WaitStatus::StillAlive if Instant::now() > deadline => {
                killpg(process, Signal::SIGKILL)?;
                waitpid(process, None)?;
                return Ok(Verdict::Failed(format!("did not end within {} s", LIMIT.as_secs())));
            }
            WaitStatus::StillAlive => thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
    let line = fs::read_to_string(VERDICT).unwrap_or_default();
    Ok(Verdict::of_line(&line).map_or_else(|| Verdict::Failed("ended without a verdict".to_owned()), |it| it.1))
}

/// Runs the test that is named.
pub fn test(name: &str) -> ExitCode {
    slower_by(SLOWER);
    let run = || -> Result<()> {
        netns::enter_as_root()?;
        let case = tests::on_kernels().find(|case| case.name == name).context("there is no such test")?;
        case.run()
    };
    let verdict = match panic::catch_unwind(run) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(error)) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Verdict::Skipped(reason.clone()),
            None => Verdict::Failed(format!("{error:#}")),
        },
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            Verdict::Failed(format!("panicked: {}", said.unwrap_or_default()))
        }
    };
    // Whoever waits notices if there is none.
    let _ = fs::write(VERDICT, verdict.line(Some(name)));
    ExitCode::SUCCESS
}

fn load(module: &Path) -> Result<()> {
    let file = File::open(module).with_context(|| module.display().to_string())?;
    // SAFETY: an open file, an empty string of parameters and no flags.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    ensure!(done == 0, "{}: finit_module: {}", module.display(), io::Error::last_os_error());
    Ok(())
}
