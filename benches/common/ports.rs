//! Interfaces of guests, as the benches of packets have them.

use std::sync::mpsc::{Sender, channel};
use std::thread::spawn;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};
use snf_network::addr::Mac;
use snf_network::kernel::guest_port::GuestPort;

/// Makes the interfaces of guests that neither send nor receive. A thread with a table of file descriptors of its own holds
/// them: a thousand of them in ours would be copied and closed by each process that is measured. They are gone when what is
/// returned is dropped.
///
/// # Errors
/// Those of [`open`]; many need a higher limit of open files.
pub fn hold(names: impl IntoIterator<Item = String> + Send + 'static) -> Result<Sender<()>> {
    let ((release, released), (made, result)) = (channel::<()>(), channel());
    spawn(move || {
        let guests = unshare(CloneFlags::CLONE_FILES)
            .context("unshare CLONE_FILES")
            .and_then(|()| names.into_iter().map(|name| open(&name)).collect::<Result<Vec<_>>>());
        // Until the other end is dropped; nothing is sent.
        if made.send(guests.as_ref().map(drop).map_err(|error| anyhow!("{error:#}"))).is_ok() {
            released.recv().ok();
        }
    });
    result.recv()??;
    Ok(release)
}

/// Makes the interface of a guest.
///
/// # Errors
/// Those of [`GuestPort::open`].
pub fn open(name: &str) -> Result<GuestPort> {
    GuestPort::open(&name.parse()?, Mac([2, 0, 0, 0, 3, 0]))
}
