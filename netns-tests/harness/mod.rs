//! What the tests stand on: namespaces, a topology, guests, the wire, the runner of our program, kernel snapshots.
//! Nothing in here uses the program's own code: it is the independent witness.

pub mod build;
pub mod card;
pub mod frame;
pub mod ganeti;
pub mod guest;
pub mod links;
pub mod monitor;
pub mod nameserver;
pub mod netns;
pub mod nfqueue;
pub mod nic;
pub mod ovs;
pub mod package;
pub mod packet;
pub mod ping;
pub mod port;
pub mod ptrace;
pub mod seccomp;
pub mod setting;
pub mod snapshot;
pub mod topology;
pub mod virtio;
pub mod xenstore;
pub mod xenstored;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How many times slower than usual everything may be: 1, or more in an emulated machine.
static SLOWER: AtomicU32 = AtomicU32::new(1);

/// Lets tests be more patient.
pub fn slower_by(factor: u32) {
    SLOWER.store(factor, Ordering::Relaxed);
}

/// How long anything may take before a test gives up: long enough for a loaded machine, since a passing test never
/// waits for it.
pub fn patience() -> Duration {
    Duration::from_secs(20) * SLOWER.load(Ordering::Relaxed)
}

/// How often something that takes long is done that is usually done so many times: seldomer where all is slower.
pub fn rounds(usual: usize) -> usize {
    usual.div_ceil(every_nth())
}

/// Which of a long row of cases are tried: every one, or every nth where all is slower.
pub fn every_nth() -> usize {
    SLOWER.load(Ordering::Relaxed) as usize
}

/// Why a test cannot run on this machine.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKIP: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Waits until `cond` holds.
///
/// # Errors
/// If it does not hold within `patience`, naming `what` was waited for; or what `cond` itself answers.
pub fn until(what: &str, mut cond: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience();
    while !cond()? {
        if Instant::now() > deadline {
            bail!("waited {} s in vain: {what}", patience().as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
