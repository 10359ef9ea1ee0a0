//! How long this run may take: every wait of it ends at one point in time, which SNF_NETWORK_TIMEOUT sets.
//!
//! It belongs to the process, as alarm(2)'s does. Before the settings are read, and in a process that nobody waits for, there is
//! none. What the kernel itself makes wait (rtnl_mutex, a disk) is in nobody's hand.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What undoing may take when the time is up.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    /// For messages: how long it was from the start.
    whole: Duration,
    in_grace: bool,
}

static RUN: Mutex<Option<Deadline>> = Mutex::new(None);

fn run() -> MutexGuard<'static, Option<Deadline>> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run may take this long from now; one that has a deadline already keeps the earlier.
pub fn begin(whole: Duration) {
    let new = Deadline { at: Instant::now() + whole, whole, in_grace: false };
    let mut run = run();
    *run = run.filter(|it| it.at <= new.at).or(Some(new));
}

/// Nobody waits for this process any more.
pub fn lift() {
    *run() = None;
}

/// The run has failed and is to be undone: there is a little more time for that, once.
pub fn grace() {
    if let Some(deadline) = run().as_mut().filter(|it| !it.in_grace) {
        deadline.at += GRACE;
        deadline.in_grace = true;
    }
}

/// When the run must end, if ever.
pub fn end() -> Option<Instant> {
    run().map(|it| it.at)
}

/// What is left of it; none without a deadline.
pub fn left() -> Option<Duration> {
    Some(end()?.saturating_duration_since(Instant::now()))
}

/// A patience of one's own, or what is left if that is less.
pub fn at_most(patience: Duration) -> Duration {
    left().map_or(patience, |left| left.min(patience))
}

/// `30 s`: how long the run had, for messages.
pub fn whole() -> String {
    run().map_or_else(String::new, |it| format!("{} s", it.whole.as_secs_f32()))
}
