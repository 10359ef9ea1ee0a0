//! Surroundings that mean ill: files that are traps, and locks that nobody lets go of.

mod bindings;
mod files;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, Site};
use crate::harness::{Skip, rounds};

pub const TESTS: &[Test] = &[
    ("hostile::state_folder", state_folder),
    ("hostile::lock_file", lock_file),
    ("hostile::record", record),
    ("hostile::log", log),
    ("hostile::a_log_that_is_exchanged_all_the_time", a_log_that_is_exchanged_all_the_time),
    ("hostile::a_fifo_in_place_of_a_folder_or_a_binding", bindings::a_fifo_in_place_of_a_folder_or_a_binding),
    ("hostile::bindings", bindings::traps),
    ("hostile::a_folder_in_place_of_a_binding", bindings::a_folder_in_place_of_a_binding),
    ("hostile::a_binding_that_stays_refuses_no_other_nic", bindings::a_binding_that_stays_refuses_no_other_nic),
    ("hostile::bindings_on_a_file_system_of_their_own", bindings::on_a_file_system_of_their_own),
    ("hostile::a_log_in_a_folder_of_others", files::a_log_in_a_folder_of_others),
    ("hostile::a_log_of_the_greatest_size", files::a_log_of_the_greatest_size),
    ("hostile::settings_and_a_script_of_others", files::settings_and_a_script_of_others),
    ("hostile::settings", settings),
    ("hostile::a_lock_that_is_held", a_lock_that_is_held),
    ("hostile::how_long_a_run_may_take", how_long_a_run_may_take),
];

/// Runs a verb, which must not hang; if it does, its exit code is 124.
fn run(nic: &Nic<'_>, verb: &str) -> Result<Outcome> {
    nic.run_under(&["timeout", "60"], verb)
}

/// That ifup fails, and nothing of it is left.
fn refused(node: &Node, nic: &Nic<'_>, parts: &[&str]) -> Result<()> {
    let before = Snapshot::of(&node.netns)?;
    run(nic, "ifup")?.fails(parts)?;
    before.returns_in(&node.netns, |state| state)
}

/// A site with a guest whose NIC is not up, and its NIC.
pub(super) fn plugged() -> Result<(Site, Guest)> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    Ok((site, guest))
}

fn fifo(path: &Path) -> Result<()> {
    mkfifo(path, Mode::S_IRWXU).with_context(|| path.display().to_string())
}

pub(super) fn chmod(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

/// Removes whatever it is.
fn clear(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()) {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn state_folder() -> Result<()> {
    let (site, guest) = plugged()?;
    let (node, state) = (&site.node, site.node.files.state());
    let nic = node.nic("tap0", WEB1);
    chmod(&state, 0o777)?;
    refused(node, &nic, &["ifup tap0: STATE_DIR", "state", "everybody can write it"])?;
    run(&nic, "ifdown")?.fails(&["ifdown tap0: STATE_DIR", "everybody can write it"])?;
    chmod(&state, 0o755)?;
    let moved = node.files.folder.join("moved");
    fs::rename(&state, &moved)?;
    fs::write(&state, "")?;
    refused(node, &nic, &["ifup tap0: STATE_DIR", "state", "Not a directory"])?;
    clear(&state)?;
    fifo(&state)?;
    refused(node, &nic, &["ifup tap0: STATE_DIR", "state", "Not a directory"])?;
    clear(&state)?;
    symlink(node.files.folder.join("none"), &state)?;
    refused(node, &nic, &["ifup tap0: STATE_DIR", "state"])?;
    // A link of root's may lead to it.
    clear(&state)?;
    symlink(&moved, &state)?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    run(&nic, "ifdown")?.succeeds()?;
    // Whose this one is, is another user or another group in any namespace (base-files of Debian).
    node.files.set("STATE_DIR=/var/mail")?;
    refused(node, &nic, &["ifup tap0: STATE_DIR: /var/mail: ", "expected"])
}

fn lock_file() -> Result<()> {
    let (site, guest) = plugged()?;
    let (node, locks) = (&site.node, site.node.files.state().join("locks-of-interfaces"));
    let nic = node.nic("tap0", WEB1);
    let elsewhere = node.files.folder.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let lock = locks.join("tap0");
    let parts = ["ifup tap0: STATE_DIR", "locks-of-interfaces/tap0"];
    symlink(elsewhere.join("tap0"), &lock)?;
    refused(node, &nic, &parts)?;
    clear(&lock)?;
    fifo(&lock)?;
    refused(node, &nic, &[parts[0], parts[1], "expected a regular file"])?;
    clear(&lock)?;
    fs::create_dir(&lock)?;
    refused(node, &nic, &parts)?;
    clear(&lock)?;
    fs::write(&lock, "")?;
    chmod(&lock, 0o666)?;
    refused(node, &nic, &[parts[0], parts[1], "everybody can write it"])?;
    clear(&locks)?;
    symlink(&elsewhere, &locks)?;
    refused(node, &nic, &parts)?;
    clear(&locks)?;
    fs::write(&locks, "")?;
    refused(node, &nic, &parts)?;
    clear(&locks)?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    let left: Vec<_> = fs::read_dir(&elsewhere)?.collect();
    ensure!(left.is_empty(), "a link was followed: {left:?}");
    run(&nic, "ifdown")?.succeeds().map(drop)
}

fn record() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let (path, victim) = (node.files.state().join("tap0"), node.files.folder.join("victim"));
    run(&nic, "ifup")?.succeeds()?;
    let good = fs::read(&path)?;
    run(&nic, "ifdown")?.succeeds()?;
    fs::write(&victim, &good)?;
    let traps: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("a link", &|| Ok(symlink(&victim, &path)?)),
        ("a FIFO", &|| fifo(&path)),
        // Two gigabytes, of which none is on the disk.
        ("a huge file", &|| Ok(File::create(&path)?.set_len(2 << 30)?)),
        ("everybody's file", &|| {
            fs::write(&path, &good)?;
            chmod(&path, 0o666)
        }),
    ];
    for (what, trap) in traps {
        trap()?;
        run(&nic, "ifdown")?.fails(&["ifdown tap0", "state/tap0"]).context(what)?;
        // It says nothing that is to be believed; it is replaced.
        run(&nic, "ifup")?.succeeds().context(what)?;
        guest.ping(OUTSIDE).context(what)?;
        let metadata = fs::symlink_metadata(&path)?;
        ensure!(metadata.is_file() && metadata.permissions().mode() & 0o7777 == 0o600, "{what}: {metadata:?}");
        let log = fs::read_to_string(node.files.log())?;
        ensure!(log.contains("warning: ") && log.contains("ignored"), "{what}: {log}");
        fs::remove_file(node.files.log())?;
        run(&nic, "ifdown")?.succeeds().context(what)?;
    }
    ensure!(fs::read(&victim)? == good, "a link was followed");
    fs::create_dir(&path)?;
    refused(node, &nic, &["ifup tap0: STATE_DIR", "state/tap0"])
}

fn log() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let (log, elsewhere) = (node.files.log(), node.files.folder.join("elsewhere"));
    // That of node up.
    clear(&log)?;
    fifo(&log)?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    // With a reader that does not read, and no room in between.
    let reader = OpenOptions::new().read(true).write(true).open(&log)?;
    let mut filler = Command::new("dd");
    let filler = filler.args(["if=/dev/zero", "bs=4096", "oflag=nonblock", "status=none"]);
    let _until_it_is_full = filler.arg(format!("of={}", log.display())).output()?;
    run(&nic, "ifdown")?.succeeds()?;
    drop(reader);
    clear(&log)?;
    // A link of root's.
    symlink(&elsewhere, &log)?;
    run(&nic, "ifup")?.succeeds()?;
    ensure!(fs::read_to_string(&elsewhere)?.contains("ifup tap0"), "nothing is logged through a link of root's");
    run(&nic, "ifdown")?.succeeds().map(drop)
}

/// Who may write into the log's folder puts a link and a FIFO under its name in turn: a run that looked at the one must not wait
/// for the other.
fn a_log_that_is_exchanged_all_the_time() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let (log, trap) = (node.files.log(), node.files.folder.join("trap"));
    clear(&log)?;
    symlink(node.files.folder.join("elsewhere"), &log)?;
    fifo(&trap)?;
    let exchange = || renameat2(AT_FDCWD, &log, AT_FDCWD, &trap, RenameFlags::RENAME_EXCHANGE);
    exchange().map_err(|errno| Skip(format!("RENAME_EXCHANGE: {errno}")))?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _never_fails = exchange();
            }
        });
        let run = || -> Result<()> {
            for _ in 0..rounds(10) {
                run(&nic, "ifup")?.succeeds()?;
                run(&nic, "ifdown")?.succeeds()?;
            }
            Ok(())
        };
        let done = run();
        ended.store(true, Ordering::Relaxed);
        done
    })
}

fn settings() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let trap = node.files.folder.join("trap");
    fifo(&trap)?;
    let huge = node.files.folder.join("huge");
    File::create(&huge)?.set_len(2 << 30)?;
    for (file, expected) in [
        (trap.as_path(), "expected a regular file"),
        (Path::new("/dev/zero"), "expected a regular file"),
        (Path::new("/"), "expected a regular file"),
        (&huge, "expected a file of at most"),
    ] {
        let nic = node.nic("tap0", WEB1).set("SNF_NETWORK_DEFAULTS", file.display());
        refused(node, &nic, &["ifup tap0: SNF_NETWORK_DEFAULTS", expected])?;
    }
    node.files.set(&format!("SERVER=192.0.2.1\nKEYFILE={}", trap.display()))?;
    node.files
        .run(&node.netns, &["dns", "show"], "--instance web1.example.org")?
        .fails(&["dns show", "regular file"])?;
    Ok(())
}

/// Takes a lock in STATE_DIR, as a run that hangs would hold it.
pub(super) fn held(node: &Node, name: &str) -> Result<File> {
    let locks = node.files.state().join("locks-of-interfaces");
    fs::create_dir_all(&locks)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(locks.join(name))?;
    file.lock()?;
    Ok(file)
}

fn a_lock_that_is_held() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    node.files.set("SNF_NETWORK_TIMEOUT=1")?;
    let nic = node.nic("tap0", WEB1);
    let lock = held(node, "tap0")?;
    let holder = format!("another run holds the lock for 1 s (process {})", process::id());
    refused(node, &nic, &["ifup tap0: STATE_DIR: ", "locks-of-interfaces/tap0: ", &holder])?;
    run(&nic, "ifdown")?.fails(&["ifdown tap0: STATE_DIR: ", &holder])?;
    // It waits as long as it may.
    let running = node.nic("tap0", WEB1).set("SNF_NETWORK_TIMEOUT", 60).start("ifup")?;
    drop(lock);
    running.finish()?.succeeds()?;
    guest.ping(OUTSIDE)?;
    run(&nic, "ifdown")?.succeeds()?;
    let _lock = held(node, "uplinks-by-device")?;
    let down = node.files.run(&node.netns, &["node", "down"], "--dev eth1")?;
    down.fails(&["node down eth1: STATE_DIR: ", &holder])?;
    Ok(())
}

fn how_long_a_run_may_take() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let nic = || node.nic("tap0", WEB1);
    for wrong in ["0", "3601", "-1", "1.5", "soon", "+1"] {
        refused(
            node,
            &nic().set("SNF_NETWORK_TIMEOUT", wrong),
            &["ifup tap0: SNF_NETWORK_TIMEOUT", wrong, "1 to 3600"],
        )?;
    }
    // The environment wins.
    node.files.set("SNF_NETWORK_TIMEOUT=3600")?;
    let _lock = held(node, "tap0")?;
    refused(node, &nic().set("SNF_NETWORK_TIMEOUT", 1), &["holds the lock for 1 s"])?;
    node.files.set("SNF_NETWORK_TIMEOUT=0")?;
    refused(node, &nic(), &["ifup tap0", "settings:", "SNF_NETWORK_TIMEOUT", "1 to 3600"])
}
