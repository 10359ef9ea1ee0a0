//! The functions that a NIC's ifup and ifdown call, for the linker to put them side by side (packaging/functions.ld): pages that
//! hold nothing else are fewer to map, and fewer to find in the processor's caches.
//!
//! A breakpoint on each function of the program, taken away when it is hit. On x86-64.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::PTRACE_EVENT_EXEC;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::binaries::Binaries;
use super::latency::PAUSE;
use super::runs::Contestant;
use super::world::{Number, Setup, World};

/// The instruction INT3.
const BREAKPOINT: u8 = 0xcc;
/// Where the list is.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/functions.ld");
const HEAD: &str = "/* What ifup and ifdown call, side by side: fewer pages to map. Made by `cargo bench -- order --write`. Crates' hashes
   and what counts their characters are stars. A name that is gone does no harm. */
SECTIONS { .text.hot : { *(
";
const TAIL: &str = ") } }\nINSERT BEFORE .text;\n";

/// Functions by the address of their first instruction, as in the file; several names may have one.
type Functions = BTreeMap<u64, Vec<String>>;

/// Lists what runs of all setups call, and tells how much of it the linker put into its place by the list there is.
///
/// # Errors
/// If anything fails.
pub fn list(folder: &Path, binaries: &Binaries, write: bool) -> Result<()> {
    let functions = functions(&binaries.program)?;
    let mut called = BTreeSet::new();
    for setup in Setup::ALL {
        eprintln!("order: {}", setup.name());
        let world = World::build(setup, 1, &folder.join("order").join(setup.name()), binaries)?;
        for verb in ["ifup", "ifup", "ifdown"] {
            called.extend(trace(&world.program(binaries, verb, Number(0)), &functions)?);
            sleep(PAUSE);
        }
    }
    let hot = hot(&binaries.program)?;
    let placed = called.iter().filter(|it| hot.contains(it)).count();
    println!("{} functions called, {placed} of them in .text.hot ({} kB)", called.len(), (hot.end - hot.start) / 1000);
    if write {
        let names: BTreeSet<_> = called.iter().flat_map(|it| &functions[it]).map(|it| pattern(it)).collect();
        let mut text = HEAD.to_owned();
        for name in names {
            writeln!(text, "  .text.{name}")?;
        }
        fs::write(LIST, text + TAIL)?;
    }
    Ok(())
}

/// What nm, of the linker's own package, says of a file.
fn functions(program: &str) -> Result<Functions> {
    let mut functions = Functions::new();
    for line in output("nm", &[program])?.lines() {
        let [address, "t" | "T" | "w" | "W", name] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        functions.entry(u64::from_str_radix(address, 16)?).or_default().push(name.to_owned());
    }
    Ok(functions)
}

/// Where the section of what is called lies; empty if there is none.
fn hot(program: &str) -> Result<std::ops::Range<u64>> {
    let sections = output("objdump", &["--section-headers", program])?;
    let Some(line) = sections.lines().find(|it| it.contains(" .text.hot ")) else { return Ok(0..0) };
    let [_, _, size, address, ..] = line.split_ascii_whitespace().collect::<Vec<_>>()[..] else { bail!("{line}") };
    let (size, address) = (u64::from_str_radix(size, 16)?, u64::from_str_radix(address, 16)?);
    Ok(address..address + size)
}

fn output(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs the contestant to its end; returns where the functions are that it called. The process that takes over at its end finds
/// breakpoints that nobody takes away, and ends.
fn trace(contestant: &Contestant<'_>, functions: &Functions) -> Result<BTreeSet<u64>> {
    // It waits for its tracer before it is the program.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -c 0; kill -STOP $$; exec \"$@\"", "sh"]).args(&contestant.command);
    command.env_clear().envs(contestant.variables.iter().cloned()).stdin(Stdio::null());
    contestant.within(|| {
        let pid = Pid::from_raw(command.spawn()?.id().cast_signed());
        waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
        ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)?;
        kill(pid, Signal::SIGCONT)?;
        while !matches!(waitpid(pid, None)?, WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_EXEC)) {
            ptrace::cont(pid, None)?;
        }
        follow(pid, &contestant.command[0], functions)
    })
}

/// Follows what has just begun to be the program.
fn follow(pid: Pid, program: &str, functions: &Functions) -> Result<BTreeSet<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let base = maps.lines().find(|it| it.ends_with(program)).and_then(|it| it.split('-').next());
    let base = u64::from_str_radix(base.context("the program is not mapped")?, 16)?;
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut instructions = BTreeMap::new();
    for &function in functions.keys() {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, base + function)?;
        memory.write_all_at(&[BREAKPOINT], base + function)?;
        instructions.insert(function, byte);
    }
    let mut called = BTreeSet::new();
    let mut signal = None;
    loop {
        ptrace::cont(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => return Ok(called),
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let mut registers = ptrace::getregs(pid)?;
                registers.rip -= 1;
                let function = registers.rip - base;
                let byte = instructions.get(&function).with_context(|| format!("{function:x}: no function"))?;
                memory.write_all_at(byte, registers.rip)?;
                ptrace::setregs(pid, registers)?;
                called.insert(function);
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            other => bail!("{program}: {other:?}"),
        }
    }
}

/// A name as it will be in another build, with stars for what differs: in the mangling of Rust (v0), the hash of a crate is
/// `Cs` HASH `_`, and `B` NUMBER `_` is a place in the name, which counts the characters of the hashes. LLVM tells those of one name
/// apart by a number behind it.
fn pattern(name: &str) -> String {
    let mut pattern = String::new();
    let is_number = |it: &&str| it.bytes().all(|it| it.is_ascii_digit());
    let numbered = name.rsplit_once('.').filter(|it| is_number(&it.1)).map(|it| it.0);
    let mut rest = numbered.unwrap_or(name);
    while let Some(first) = rest.chars().next() {
        let after = |tag: &str, most: usize| {
            let number = rest.strip_prefix(tag)?;
            let (number, behind) = number.split_once('_')?;
            (number.len() <= most && number.bytes().all(|it| it.is_ascii_alphanumeric())).then_some(behind)
        };
        let (tag, behind) = match (after("Cs", 11), after("B", 3)) {
            (Some(behind), _) if name.starts_with("_R") => ("Cs*_", behind),
            (_, Some(behind)) if name.starts_with("_R") => ("B*_", behind),
            _ => (&rest[..first.len_utf8()], &rest[first.len_utf8()..]),
        };
        pattern.push_str(tag);
        rest = behind;
    }
    if numbered.is_some() { pattern + ".*" } else { pattern }
}
