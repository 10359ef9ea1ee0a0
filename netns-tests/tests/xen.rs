//! vif-custom, as Xen's hotplug runs it: the NIC of Ganeti's file, and what Xen is told in xenstore.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::hostile::held;
use crate::Test;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{OUTSIDE, OUTSIDE6, Site};
use crate::harness::xenstore::{Manners, Xenstore};
use crate::harness::xenstored::Xenstored;

pub const TESTS: &[Test] = &[
    ("xen::routed", routed),
    ("xen::bridged", bridged),
    ("xen::the_name_of_a_migrating_domain", the_name_of_a_migrating_domain),
    ("xen::an_instance_called_like_a_migrating_one", an_instance_called_like_a_migrating_one),
    ("xen::an_emulated_card", an_emulated_card),
    ("xen::both_cards_of_a_guest", both_cards_of_a_guest),
    ("xen::what_is_not_ours", what_is_not_ours),
    ("xen::failures_are_told", failures_are_told),
    ("xen::a_xenstore_that_does_not_answer", a_xenstore_that_does_not_answer),
    ("xen::a_lock_that_is_held", a_lock_that_is_held),
    ("xen::bad_answers", bad_answers),
];
/// By Debian's own package.
pub const PACKAGED: &[Test] = &[("xen::debians_own_xenstored", debians_own_xenstored)];

const NAME: &str = "/local/domain/7/name";
const STATUS: &str = "backend/vif/7/0/hotplug-status";
const ERROR: &str = "backend/vif/7/0/hotplug-error";

/// A site whose node has a domain 7 with one NIC.
struct Xen {
    site: Site,
    store: Xenstore,
}

impl Xen {
    fn new(manners: Manners, values: &[(&str, &str)]) -> Result<Self> {
        let site = Site::new()?;
        let files = &site.node.files;
        files.set(&format!("GANETI_NIC_DIR={}/nic", files.folder.display()))?;
        Ok(Self { site, store: Xenstore::new(manners, values)? })
    }

    /// The NIC of Ganeti's file.
    fn nic(&self) -> Nic<'_> {
        self.site.node.nic("vif7.0", WEB1)
    }

    fn file(&self) -> PathBuf {
        self.site.node.files.folder.join("nic").join(WEB1.name).join("0")
    }

    /// Writes Ganeti's file.
    fn describe(&self, nic: &Nic<'_>) -> Result<()> {
        let file = self.file();
        fs::create_dir_all(file.parent().context("a folder")?)?;
        Ok(fs::write(file, nic.xen_file())?)
    }

    /// Runs `vif-custom` with Xen's variables; those given come on top.
    fn hotplug_with(&self, arguments: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
        let rundir = self.store.rundir();
        let mut all =
            vec![("vif", "vif7.0"), ("XENBUS_PATH", "backend/vif/7/0"), ("XENSTORED_RUNDIR", rundir.as_str())];
        all.extend(variables);
        let words: Vec<_> = ["vif-custom"].into_iter().chain(arguments.split_whitespace()).collect();
        self.site.node.files.run_with(&self.site.node.netns, &words, &all)
    }

    fn hotplug(&self, arguments: &str) -> Result<Outcome> {
        self.hotplug_with(arguments, &[])
    }

    /// That exactly this was written.
    fn wrote(&self, expected: &[(&str, &str)]) -> Result<()> {
        let written = self.store.written();
        let written: Vec<_> = written.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        ensure!(written == expected, "written: {written:?}, expected: {expected:?}");
        Ok(())
    }

    /// That an error was written, with these parts, and then the status.
    fn wrote_error(&self, parts: &[&str]) -> Result<()> {
        let written = self.store.written();
        let [(error, message), (status, word)] = &written[..] else {
            anyhow::bail!("written: {written:?}");
        };
        ensure!((error.as_str(), status.as_str(), word.as_str()) == (ERROR, STATUS, "error"), "{written:?}");
        for part in parts {
            ensure!(message.contains(part), "expected {part:?} in {message:?}");
        }
        Ok(())
    }
}

fn routed() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name)])?;
    let node = &xen.site.node;
    let guest = node.plug("vif7.0", WEB1)?;
    let before = Snapshot::of(&node.netns)?;
    xen.describe(&xen.nic().set("TAGS", "a b $(reboot)"))?;
    for _ in 0..2 {
        xen.hotplug("online type_if=vif")?.succeeds()?;
        xen.wrote(&[(STATUS, "connected")])?;
    }
    for outside in [OUTSIDE, OUTSIDE6] {
        guest.ping(outside)?;
    }
    let state = fs::read_to_string(node.files.state().join("vif7.0"))?;
    for part in [&format!("INSTANCE='{}'", WEB1.name), "INTERFACE='vif7.0'", "TAGS='a b $(reboot)'"] {
        ensure!(state.contains(part), "{state}");
    }
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains(&format!(" vif-custom vif7.0 {}: ", WEB1.name)), "{log}");
    // Neither the domain nor its file need be there any more, nor xenstore.
    fs::remove_file(xen.file())?;
    xen.hotplug_with("offline type_if=vif", &[("XENSTORED_PATH", "/nonexistent/socket")])?.succeeds()?;
    xen.wrote(&[])?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)?;
    xen.hotplug("offline")?.succeeds()?;
    xen.wrote(&[])
}

fn bridged() -> Result<()> {
    for (values, link, expected) in [
        (&[(NAME, WEB1.name), ("backend/vif/7/0/bridge", "br0")][..], "br1", "br0"),
        (&[(NAME, WEB1.name)], "br1", "br1"),
    ] {
        let xen = Xen::new(Manners::Good, values)?;
        let netns = &xen.site.node.netns;
        netns.ip_batch(
            "link add br0 type bridge mcast_snooping 0\nlink add br1 type bridge mcast_snooping 0\n\
             link set br0 up\nlink set br1 up\n",
        )?;
        let _guest = xen.site.node.plug("vif7.0", WEB1)?;
        xen.describe(&xen.nic().without_network().bridged(link))?;
        xen.hotplug("online")?.succeeds()?;
        xen.wrote(&[(STATUS, "connected")])?;
        let shown = netns.ip("-o link show dev vif7.0")?;
        ensure!(shown.contains(&format!("master {expected} ")), "{shown}");
        xen.hotplug("offline")?.succeeds()?;
        let shown = netns.ip("-o link show dev vif7.0")?;
        ensure!(!shown.contains("master"), "{shown}");
    }
    Ok(())
}

fn the_name_of_a_migrating_domain() -> Result<()> {
    for suffix in ["--incoming", "--migratedaway"] {
        let xen = Xen::new(Manners::Good, &[(NAME, &format!("{}{suffix}", WEB1.name))])?;
        let _guest = xen.site.node.plug("vif7.0", WEB1)?;
        xen.describe(&xen.nic())?;
        xen.hotplug("online")?.succeeds()?;
        xen.wrote(&[(STATUS, "connected")])?;
        let state = fs::read_to_string(xen.site.node.files.state().join("vif7.0"))?;
        ensure!(state.contains(&format!("INSTANCE='{}'\n", WEB1.name)), "{state}");
    }
    Ok(())
}

/// It has NICs of its own, and must not get those of the instance whose name it begins with.
fn an_instance_called_like_a_migrating_one() -> Result<()> {
    let name = format!("{}--incoming", WEB1.name);
    let xen = Xen::new(Manners::Good, &[(NAME, &name)])?;
    let _guest = xen.site.node.plug("vif7.0", WEB2)?;
    xen.describe(&xen.nic())?;
    let own = xen.file().parent().and_then(Path::parent).context("Ganeti's folder")?.join(&name);
    fs::create_dir(&own)?;
    fs::write(own.join("0"), xen.site.node.nic("vif7.0", WEB2).xen_file())?;
    xen.hotplug("online")?.succeeds()?;
    let state = fs::read_to_string(xen.site.node.files.state().join("vif7.0"))?;
    ensure!(state.contains(&format!("INSTANCE='{name}'\n")), "{state}");
    ensure!(state.contains(&format!("MAC='{}'", WEB2.mac)) && !state.contains(&WEB1.mac.to_string()), "{state}");
    Ok(())
}

fn an_emulated_card() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name)])?;
    let node = &xen.site.node;
    let guest = node.plug("vif7.0-emu", WEB1)?;
    let before = Snapshot::of(&node.netns)?;
    xen.describe(&xen.nic())?;
    let emulated = [("INTERFACE", "vif7.0-emu")];
    xen.hotplug_with("add type_if=tap", &emulated)?.succeeds()?;
    // Xen waits for the status of the paravirtual card alone.
    xen.wrote(&[])?;
    guest.ping(OUTSIDE)?;
    xen.hotplug_with("remove type_if=tap", &emulated)?.succeeds()?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)?;
    xen.hotplug("add type_if=tap")?.fails(&["INTERFACE is not set, expected"])?;
    xen.wrote_error(&["INTERFACE is not set"])
}

/// An emulated card has both interfaces, and goes with both; the guest is reached through the one that came last.
fn both_cards_of_a_guest() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name)])?;
    let node = &xen.site.node;
    let _paravirtual = node.plug("vif7.0", WEB1)?;
    let guest = node.plug("vif7.0-emu", WEB1)?;
    let before = Snapshot::of(&node.netns)?;
    xen.describe(&xen.nic())?;
    let emulated = [("INTERFACE", "vif7.0-emu")];
    xen.hotplug_with("online type_if=vif", &emulated)?.succeeds()?;
    xen.hotplug_with("add type_if=tap", &emulated)?.succeeds()?;
    xen.wrote(&[(STATUS, "connected")])?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    xen.hotplug_with("offline type_if=vif", &emulated)?.succeeds()?;
    xen.hotplug_with("remove type_if=tap", &emulated)?.succeeds()?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)
}

fn what_is_not_ours() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name)])?;
    let log = fs::read_to_string(xen.site.node.files.log())?;
    for arguments in ["add", "remove type_if=vif", "online type_if=tap", "offline type_if=tap"] {
        let outcome = xen.hotplug(arguments)?.succeeds()?;
        ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
        xen.wrote(&[])?;
    }
    ensure!(fs::read_to_string(xen.site.node.files.log())? == log, "something was logged");
    Ok(())
}

fn failures_are_told() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name), ("/local/domain/8/name", "../web1")])?;
    let node = &xen.site.node;
    let before = Snapshot::of(&node.netns)?;
    let fails = |arguments: &str, variables: &[(&str, &str)], part: &str| -> Result<()> {
        xen.hotplug_with(arguments, variables)?.fails(&["vif-custom", part])?;
        xen.wrote_error(&["vif-custom", part])
    };
    fails("online", &[], "No such file")?;
    xen.describe(&xen.nic())?;
    fails("online", &[], "vif7.0")?;
    let guest = node.plug("vif7.0", WEB1)?;
    let plugged = Snapshot::of(&node.netns)?;
    for (name, value, part) in
        [("MAC", "zz", "MAC \"zz\""), ("LINK", "4242", "no IPv4 default route"), ("MODE", "x\ny", "expected KEY=value")]
    {
        xen.describe(&xen.nic().set(name, value))?;
        fails("online", &[], part)?;
    }
    xen.describe(&xen.nic())?;
    fails("online", &[("vif", "")], "vif is not set")?;
    fails("online", &[("SNF_NETWORK_DEFAULTS", "/nonexistent")], "SNF_NETWORK_DEFAULTS")?;
    fails("sideways", &[], "\"sideways\": expected online")?;
    fails("online type_if=bond", &[], "type_if=\"bond\": expected vif or tap")?;
    fails("", &[], "expected online")?;
    // Another domain, and where nobody can be told.
    for (path, parts) in [
        ("backend/vif/8/0", &["\"../web1\": expected a host name"][..]),
        ("backend/vif/9/0", &["/local/domain/9/name is missing"]),
    ] {
        xen.hotplug_with("online", &[("XENBUS_PATH", path)])?.fails(parts)?;
        let written = xen.store.written();
        ensure!(written.len() == 2 && written[1] == (format!("{path}/hotplug-status"), "error".to_owned()));
    }
    xen.hotplug_with("online", &[("XENBUS_PATH", "")])?.fails(&["XENBUS_PATH is not set"])?;
    xen.hotplug_with("online", &[("XENBUS_PATH", "backend/vbd/7/0")])?.fails(&["XENBUS_PATH \"backend/vbd/7/0\""])?;
    // Nothing is written when it goes, whatever happens.
    xen.hotplug_with("offline", &[("SNF_NETWORK_DEFAULTS", "/nonexistent")])?.fails(&["SNF_NETWORK_DEFAULTS"])?;
    xen.wrote(&[])?;
    plugged.equals(&Snapshot::of(&node.netns)?)?;
    node.unplug(guest, "vif7.0")?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)
}

fn a_xenstore_that_does_not_answer() -> Result<()> {
    let xen = Xen::new(Manners::Silent, &[(NAME, WEB1.name)])?;
    let _guest = xen.site.node.plug("vif7.0", WEB1)?;
    xen.describe(&xen.nic())?;
    let start = Instant::now();
    let parts = ["vif7.0: xenstore: read /local/domain/7/name: answer: nothing within 3 s", "Xen was not told"];
    xen.hotplug("online")?.fails(&parts)?;
    ensure!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let path = xen.store.rundir() + "/nobody";
    xen.hotplug_with("online", &[("XENSTORED_PATH", &path)])?.fails(&["/nobody: No such file"])?;
    Ok(())
}

fn a_lock_that_is_held() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[(NAME, WEB1.name)])?;
    let node = &xen.site.node;
    let _guest = node.plug("vif7.0", WEB1)?;
    let before = Snapshot::of(&node.netns)?;
    xen.describe(&xen.nic())?;
    let lock = held(node, "vif7.0")?;
    // Xen is told though the time is up.
    xen.hotplug_with("online", &[("SNF_NETWORK_TIMEOUT", "1")])?.fails(&["another run holds the lock for 1 s"])?;
    xen.wrote_error(&["another run holds the lock for 1 s"])?;
    before.equals(&Snapshot::of(&node.netns)?)?;
    drop(lock);
    xen.hotplug("online")?.succeeds()?;
    xen.wrote(&[(STATUS, "connected")])
}

fn bad_answers() -> Result<()> {
    for (manners, part) in [
        (Manners::CutShort, "read /local/domain/7/name: answer: failed to fill whole buffer"),
        (Manners::WrongId, "expected 1"),
    ] {
        let xen = Xen::new(manners, &[(NAME, WEB1.name)])?;
        xen.hotplug("online")?.fails(&[part])?;
        xen.wrote_error(&[part])?;
    }
    let xen = Xen::new(Manners::ReadOnly, &[(NAME, WEB1.name)])?;
    let _guest = xen.site.node.plug("vif7.0", WEB1)?;
    xen.describe(&xen.nic())?;
    let written = "xenstore: write backend/vif/7/0/hotplug-status: EACCES; Xen was not told: xenstore: write";
    xen.hotplug("online")?.fails(&[written])?;
    xen.wrote(&[])
}

fn debians_own_xenstored() -> Result<()> {
    let xen = Xen::new(Manners::Good, &[])?;
    let guest = xen.site.node.plug("vif7.0", WEB1)?;
    xen.describe(&xen.nic())?;
    let store = Xenstored::start()?;
    let rundir = store.rundir().to_string_lossy().into_owned();
    let variables = [("XENSTORED_RUNDIR", rundir.as_str())];
    // No name: the store has no such domain.
    xen.hotplug_with("online type_if=vif", &variables)?.fails(&["/local/domain/7/name is missing"])?;
    ensure!(store.read(STATUS)? == "error", "{}", store.read(STATUS)?);
    ensure!(store.read(ERROR)?.contains("/local/domain/7/name"), "{}", store.read(ERROR)?);
    store.write(NAME, &format!("{}--incoming", WEB1.name))?;
    xen.hotplug_with("online type_if=vif", &variables)?.succeeds()?;
    ensure!(store.read(STATUS)? == "connected", "{}", store.read(STATUS)?);
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    xen.hotplug_with("offline type_if=vif", &variables)?.succeeds().map(drop)
}
