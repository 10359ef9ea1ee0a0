//! A node whose rules and filters are all lost: one `reconcile` against as many ifups as there are NICs, in one run.
//!
//! `cargo bench --bench reconcile`. In namespaces of its own; needs no root where /dev/net/tun is open to the caller. Believe
//! the ratios, the machine is noisy.

mod common;

use std::process::Command;
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use common::{PAUSE, median};
use nix::sched::{CloneFlags, unshare};
use snf_network::addr::{IfName, Mac};
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::{Netns, enter_private};
use snf_network::kernel::process::raise_open_files;
use snf_network::kernel::topology::{add_veth, set_up};

const NICS: u16 = 1000;
const RUNS: usize = 5;

fn main() -> Result<()> {
    raise_open_files();
    enter_private()?;
    let settings = common::settings(&common::folder("bench-reconcile")?)?;
    let node = |arguments: &[&str]| common::run(arguments, &settings, []);
    let router = Netns::new()?;
    let (eth1, far): (IfName, IfName) = ("eth1".parse()?, "far".parse()?);
    add_veth((&eth1, Mac([2, 0, 0, 0, 1, 1])), (&far, Mac([2, 0, 0, 0, 1, 2])), &router)?;
    router.run(|| set_up(&far))?;
    for (gateway, routes) in [("10.0.0.1", "10.0.0.0/16"), ("2001:db8:1::1", "2001:db8:1::/64")] {
        node(&["node", "up", "--dev", "eth1", "--table", "100", "--gateway", gateway, "--routes", routes])?;
    }
    let _guests = hold()?;
    let mut ifups = Duration::ZERO;
    for number in 0..NICS {
        ifups += ifup(number, &settings)?;
    }
    sleep(PAUSE);

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        times[0].push(node(&["--version"])?);
        times[1].push(node(&["status"])?);
        times[2].push(node(&["reconcile"])?);
        lose_everything()?;
        sleep(PAUSE);
        times[3].push(node(&["reconcile"])?);
        sleep(PAUSE);
        node(&["status"]).context("after reconcile")?;
    }
    println!("{NICS} ip-less-routed NICs, IPv4 and IPv6, {RUNS} runs, spawn to exit");
    println!("{:<34} {:>10} {:>22}", "", "", "part of all ifups");
    println!("{:<34} {:>7.0} ms", "all ifups, one after another", ifups.as_secs_f64() * 1e3);
    let names = ["--version", "status", "reconcile, nothing to do", "reconcile, all filters and rules"];
    for (name, median) in names.iter().zip(times.map(median)) {
        let part = median.as_secs_f64() / ifups.as_secs_f64();
        println!("{name:<34} {:>7.1} ms {part:>22.4}", median.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Sets NIC `number` up; returns how long it took.
fn ifup(number: u16, settings: &std::path::Path) -> Result<Duration> {
    let [high, low] = number.to_be_bytes();
    let (interface, uuid, mac) = (name(number), number.to_string(), mac(number).to_string());
    let ip = format!("10.0.{}.{low}", high + 1);
    let variables = [
        ("INTERFACE", interface.as_str()),
        ("INTERFACE_UUID", &uuid),
        ("INSTANCE", "web1.example.org"),
        ("MAC", &mac),
        ("MODE", "routed"),
        ("LINK", "100"),
        ("IP", &ip),
        ("NETWORK_SUBNET", "10.0.0.0/16"),
        ("NETWORK_GATEWAY", "10.0.0.1"),
        ("NETWORK_SUBNET6", "2001:db8:1::/64"),
        ("NETWORK_GATEWAY6", "2001:db8:1::1"),
        ("NETWORK_TAGS", "ip-less-routed"),
    ];
    common::run(&["ifup"], settings, variables)
}

fn name(number: u16) -> String {
    format!("tap{number}")
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0xaa, 0, 0, 0, high, low])
}

/// The TAPs, held by a thread with a table of file descriptors of its own, so that no process that is measured gets them.
fn hold() -> Result<std::sync::mpsc::Sender<()>> {
    let ((release, released), (made, result)) = (channel::<()>(), channel());
    spawn(move || {
        let open = |number| GuestPort::open(&name(number).parse()?, mac(number));
        let guests = unshare(CloneFlags::CLONE_FILES)
            .context("unshare CLONE_FILES")
            .and_then(|()| (0..NICS).map(open).collect::<Result<Vec<_>>>());
        // Until the other end is dropped; nothing is sent.
        if made.send(guests.as_ref().map(drop).map_err(|error| anyhow!("{error:#}"))).is_ok() {
            released.recv().ok();
        }
    });
    result.recv().context("the thread that holds the TAPs")??;
    Ok(release)
}

/// As `nft flush ruleset` and a restart of systemd-networkd: no filters, no rules, none of the NICs' and the uplink's routes.
fn lose_everything() -> Result<()> {
    let run = |program: &str, words: &str| {
        let status = Command::new(program).args(words.split(' ')).status().context(program.to_owned())?;
        ensure!(status.success(), "{program} {words}: {status}");
        Ok(())
    };
    run("nft", "flush ruleset")?;
    for family in ["-4", "-6"] {
        run("ip", &format!("{family} rule flush"))?;
        run("ip", &format!("{family} rule add lookup main pref 32766"))?;
        run("ip", &format!("{family} route flush table 100"))?;
    }
    Ok(())
}
