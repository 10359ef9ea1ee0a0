//! `plan` prints what ifup would do: run by the real tools, it does the same.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("plan::routed_by_the_real_tools", routed_by_the_real_tools),
    ("plan::one_family_by_the_real_tools", one_family_by_the_real_tools),
    ("plan::unchecked_sources_by_the_real_tools", unchecked_sources_by_the_real_tools),
    ("plan::plain_nics_by_the_real_tools", plain_nics_by_the_real_tools),
    ("plan::filtered_nics_by_the_real_tools", filtered_nics_by_the_real_tools),
    ("plan::profiles_by_the_real_tools", profiles_by_the_real_tools),
    ("plan::touches_nothing", touches_nothing),
];

/// A site of which both sides get one alike.
pub(super) fn site() -> Result<Site> {
    let site = Site::new()?;
    site.node.netns.ip_batch("link add br0 address 02:00:00:00:02:01 type bridge\nlink set br0 mtu 1400 up")?;
    // A bridge without a port loses its carrier by itself, a second later on some kernels.
    let carrierless = || Ok(site.node.netns.ip("link show dev br0")?.contains("NO-CARRIER"));
    until("the bridge to have no carrier", carrierless)?;
    Ok(site)
}

/// Compares the state after our ifup with the state after `sh` ran what `plan` printed; gives the latter.
pub(super) fn differential(setting: &str, shape: impl Fn(Nic<'_>) -> Nic<'_>) -> Result<(Site, Guest)> {
    differential_of(setting, |node| node.plug("tap0", WEB1), shape)
}

/// The same for the TAP tap0 that `plug` makes.
pub(super) fn differential_of(
    setting: &str,
    plug: fn(&Node) -> Result<Guest>,
    shape: impl Fn(Nic<'_>) -> Nic<'_>,
) -> Result<(Site, Guest)> {
    let (ours, theirs) = (site()?, site()?);
    let ready = |node: &Node| -> Result<_> {
        node.files.set(setting)?;
        let guest = plug(node)?;
        // The kernel draws a TAP's MAC by lot.
        node.netns.ip("link set tap0 address 02:00:00:00:03:01")?;
        Ok(guest)
    };
    let (_guest, guest) = (ready(&ours.node)?, ready(&theirs.node)?);
    let nic = |node| shape(Nic::routed(node, "tap0", WEB1));
    nic(&ours.node).ifup()?.succeeds()?;
    ours.node.settled("tap0")?;
    let script = nic(&theirs.node).run("plan")?.succeeds()?.stdout;
    theirs.node.netns.output(Command::new("sh").args(["-e", "-c", &script])).with_context(|| script.clone())?;
    Snapshot::of(&ours.node.netns)?
        .returns_in(&theirs.node.netns, |state| state)
        .with_context(|| format!("after our ifup (-) and after sh (+) of\n{script}"))?;
    let binding = |node: &Node| fs::read_to_string(node.files.bindings().join("tap0")).ok();
    ensure!(binding(&ours.node) == binding(&theirs.node), "the bindings differ");
    Ok((theirs, guest))
}

fn routed_by_the_real_tools() -> Result<()> {
    let (_site, guest) = differential("", |nic| nic)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    differential("", |nic| nic.set("NETWORK_TAGS", "ip-less-routed nfdhcpd").set("TAGS", "it's a%s $(b) tag")).map(drop)
}

fn one_family_by_the_real_tools() -> Result<()> {
    differential("", |nic| nic.only_v4())?;
    differential("", |nic| nic.only_v6()).map(drop)
}

fn unchecked_sources_by_the_real_tools() -> Result<()> {
    differential("IPSPOOF=yes", |nic| nic).map(drop)
}

fn plain_nics_by_the_real_tools() -> Result<()> {
    differential("", |nic| nic.without_network())?;
    differential("", |nic| nic.without_network().bridged("br0")).map(drop)
}

fn filtered_nics_by_the_real_tools() -> Result<()> {
    fn bridged<'a>(nic: Nic<'a>, tags: &str) -> Nic<'a> {
        nic.bridged("br0").set("NETWORK_TAGS", tags).set("NETWORK_MAC_PREFIX", "aa:00:00")
    }
    differential("", |nic| bridged(nic, "private-filtered"))?;
    differential("MAC_MASK=ff:ff:ff:ff:0:0", |nic| bridged(nic, "private-filtered"))?;
    differential("", |nic| bridged(nic, "strict-filtered").set("NETWORK_GATEWAY6", "fe80::1"))?;
    differential("STRICT_FILTERED_TAG=strict", |nic| bridged(nic, "private-filtered strict")).map(drop)
}

fn profiles_by_the_real_tools() -> Result<()> {
    differential("", |nic| nic.bridged("br0").set("NETWORK_TAGS", "").set("TAGS", "limited"))?;
    differential("", |nic| nic.set("TAGS", "limited synnefo:network:0:protected"))?;
    differential("", |nic| nic.set("TAGS", "limited").without_network().set("NETWORK_TAGS", "strict-filtered"))
        .map(drop)
}

fn touches_nothing() -> Result<()> {
    let site = site()?;
    let (netns, files) = (&site.node.netns, &site.node.files);
    let _guest = site.node.plug("tap0", WEB1)?;
    let list = || -> Result<Vec<String>> {
        let mut command = Command::new("find");
        netns.output(command.arg(&files.folder)).map(|text| text.lines().map(str::to_owned).collect())
    };
    let (before, files_before) = (Snapshot::of(netns)?, list()?);
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").run("plan")?.succeeds()?;
    before.equals(&Snapshot::of(netns)?)?;
    ensure!(list()? == files_before, "files before: {files_before:#?}, after: {:#?}", list()?);
    Ok(())
}
