//! Inside the machine: /init, which runs the tests.
#![expect(unsafe_code, reason = "finit_module(2) and reboot(2) have no safe form")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};

use super::Verdict;
use crate::Test;
use crate::harness::Skip;

/// Where the modules are.
pub const MODULES: &str = "/modules";
/// The report's last line.
pub const END: &str = "end of report";
/// The second serial port.
const REPORT: &str = "/dev/ttyS1";

/// Runs the tests and switches the machine off.
pub fn init(tests: &[Test]) -> ExitCode {
    if let Err(error) = run(tests) {
        // Goes to the console, whose last lines the other side shows.
        eprintln!("/init: {error:#}");
    }
    // SAFETY: the command switches the machine off; there is nothing to lose in it.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    // If it did not, the kernel panics now, and QEMU ends then too.
    ExitCode::FAILURE
}

fn run(tests: &[Test]) -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>).with_context(|| place)?;
    }
    let mut modules = fs::read_dir(MODULES)?.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        load(&File::open(&module)?).with_context(|| module.display().to_string())?;
    }
    let mut report = OpenOptions::new().write(true).open(REPORT).context(REPORT)?;
    for (name, test) in tests {
        let start = Instant::now();
        let verdict = match panic::catch_unwind(AssertUnwindSafe(test)) {
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
        eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f32());
        writeln!(report, "{}", verdict.line(Some(name)))?;
    }
    writeln!(report, "{END}")?;
    // Until the port has sent all of it, the machine must stay on.
    // SAFETY: tcdrain(3) takes a file descriptor, which is open.
    let drained = unsafe { libc::tcdrain(report.as_raw_fd()) };
    ensure!(drained == 0, "tcdrain: {}", io::Error::last_os_error());
    Ok(())
}

fn load(module: &File) -> Result<()> {
    // SAFETY: an open file, an empty string of parameters and no flags.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
    if done != 0 {
        bail!("finit_module: {}", io::Error::last_os_error());
    }
    Ok(())
}
