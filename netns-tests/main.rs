//! End to end: the program, as Ganeti runs it, in network namespaces, judged by what passes on the wire and by what
//! the real `ip` and `nft` say of the kernel.
//!
//! Some run on Debian's own kernels in virtual machines, too, or only there (vm/mod.rs).
//!
//! Takes the arguments of any Rust test binary. Needs root or user namespaces, and ip, nft, iptables, strace. A test
//! that cannot run says SKIP and why; with CI=true in the environment that is a failure.
#![expect(clippy::print_stderr, reason = "a test runner speaks to whoever runs it")]

mod attack;
mod harness;
mod tests;
mod vm;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use harness::{Skip, build, netns, package};

/// A test: its name and what it does.
type Test = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    if let Some(code) = vm::other_process().or_else(package::other_process) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Tests mostly wait, for frames and for the kernel.
    arguments.test_threads.get_or_insert(4);
    // Ganeti's node daemon has this umask, and whoever has it must chmod what others read.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let machines = Arc::new(vm::Machines::of(tests::on_kernels(), |name| is_wanted(&arguments, name)));
    let prepared = if arguments.list { Ok(()) } else { prepare() };
    let refused: Option<Arc<str>> = match prepared {
        Ok(()) => None,
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => Some(reason.into()),
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        },
    };
    let here = tests::here().map(|case| {
        let refused = refused.clone();
        let name = case.name.clone();
        Trial::ignorable_test(name.clone(), move || match refused {
            Some(reason) => skipped(&name, &reason),
            None => verdict(&name, case.run()),
        })
    });
    let there = machines.trials().map(|trial| {
        let machines = Arc::clone(&machines);
        Trial::ignorable_test(trial.name(), move || verdict(&trial.name(), machines.verdict(&trial)))
    });
    let code = libtest_mimic::run(&arguments, here.chain(there).collect()).exit_code();
    if let Err(error) = machines.write_table() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    code
}

/// Starts the processes that stay outside our namespaces.
fn start_outside() -> Result<()> {
    package::start_outside()?;
    vm::system::start_outside()
}

/// What all tests stand on: the program, a process that stays outside, and namespaces.
fn prepare() -> Result<()> {
    if !build::all_on_glibc() {
        build::build_static()?;
    }
    start_outside().and_then(|()| netns::enter()).map_err(|error| Skip(format!("{error:#}")).into())
}

/// Will the test be run? As libtest-mimic decides it.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let matches = |pattern: &String| if arguments.exact { name == pattern } else { name.contains(pattern) };
    !arguments.list && arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

fn verdict(name: &str, result: Result<()>) -> Result<Completion, Failed> {
    match result {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => skipped(name, reason),
            None => Err(format!("{error:#}").into()),
        },
    }
}

fn skipped(name: &str, reason: &str) -> Result<Completion, Failed> {
    eprintln!("SKIP {name}: {reason}");
    match env::var("CI").as_deref() {
        Ok("true") => Err(format!("SKIP in CI: {reason}").into()),
        _ => Ok(Completion::ignored_with(format!("SKIP: {reason}"))),
    }
}
