//! Runs of commands, timed from spawn to exit, and what they come to.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use snf_network::kernel::namespace::Netns;

/// One who takes a NIC up or down: a command, its environment and its place.
pub struct Contestant<'a> {
    /// The namespace it runs in.
    pub namespace: &'a Netns,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// All of its environment.
    pub variables: Vec<(String, String)>,
}

/// What a run took.
#[derive(Clone, Copy, Default)]
pub struct Taken {
    /// From spawn to exit.
    pub time: Duration,
    /// On a processor, its children that it waited for included.
    pub cpu: Duration,
}

impl Contestant<'_> {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self) -> Result<Taken> {
        self.run_under(&[])
    }

    /// The same as the arguments of another command.
    ///
    /// # Errors
    /// If it fails.
    pub fn run_under(&self, wrapper: &[String]) -> Result<Taken> {
        let words: Vec<_> = wrapper.iter().chain(&self.command).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command.stdout(Stdio::null());
        self.within(|| {
            let before = children()?;
            let started = Instant::now();
            let status = command.status().with_context(|| words[0].clone())?;
            let time = started.elapsed();
            ensure!(status.success(), "{words:?}: {status}");
            Ok(Taken { time, cpu: children()?.saturating_sub(before) })
        })
    }

    /// Does something in the contestant's namespace.
    ///
    /// # Errors
    /// Those of the work.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.namespace.run(work)
    }
}

/// The processor time of all children that ended.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let of = |it: nix::sys::time::TimeVal| {
        Duration::new(it.tv_sec().unsigned_abs(), it.tv_usec().unsigned_abs() as u32 * 1000)
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// Many runs of one thing.
#[derive(Clone, Default)]
pub struct Sample(Vec<Taken>);

impl Sample {
    /// Adds a run.
    pub fn push(&mut self, taken: Taken) {
        self.0.push(taken);
    }

    /// Adds one whose processor time nobody asked for.
    pub fn push_time(&mut self, time: Duration) {
        self.push(Taken { time, cpu: Duration::ZERO });
    }

    /// The time below which this share of the runs were; zero of none.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times: Vec<_> = self.0.iter().map(|it| it.time).collect();
        times.sort_unstable();
        let place = (share * times.len().saturating_sub(1) as f64).round() as usize;
        times.get(place).copied().unwrap_or_default()
    }

    /// The median time.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The median processor time.
    pub fn cpu(&self) -> Duration {
        let mut times: Vec<_> = self.0.iter().map(|it| it.cpu).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// How many times as long as the other.
pub fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
