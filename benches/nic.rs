//! Latency of a NIC, whole process from spawn to exit, against that of the program doing nothing, in one run.
//!
//! `cargo bench --bench nic`. In namespaces of its own; needs no root where /dev/net/tun is open to the caller (else veth
//! pairs serve). Times are medians of alternating runs; believe the ratios, the machine is noisy.

mod common;

use std::thread::sleep;

use anyhow::Result;
use common::{PAUSE, median};
use snf_network::addr::{IfName, Mac};
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::{Netns, enter_private};
use snf_network::kernel::topology::{add_veth, set_up};

const RUNS: usize = 50;

const NIC: &[(&str, &str)] = &[
    ("INTERFACE", "tap0"),
    ("INTERFACE_UUID", "c0ffee"),
    ("INSTANCE", "web1.example.org"),
    ("MAC", "aa:00:00:00:00:02"),
    ("MODE", "routed"),
    ("LINK", "100"),
    ("IP", "10.0.0.2"),
    ("NETWORK_SUBNET", "10.0.0.0/24"),
    ("NETWORK_GATEWAY", "10.0.0.1"),
    ("NETWORK_SUBNET6", "2001:db8:1::/64"),
    ("NETWORK_GATEWAY6", "2001:db8:1::1"),
    ("NETWORK_TAGS", "ip-less-routed"),
];

fn main() -> Result<()> {
    enter_private()?;
    let settings = common::settings(&common::folder("bench-nic")?)?;
    let run = |arguments: &[&str]| common::run(arguments, &settings, NIC.iter().copied());

    let router = Netns::new()?;
    let (eth1, far): (IfName, IfName) = ("eth1".parse()?, "far".parse()?);
    add_veth((&eth1, Mac([2, 0, 0, 0, 1, 1])), (&far, Mac([2, 0, 0, 0, 1, 2])), &router)?;
    router.run(|| set_up(&far))?;
    for (gateway, routes) in [("10.0.0.1", "10.0.0.0/24"), ("2001:db8:1::1", "2001:db8:1::/64")] {
        run(&["node", "up", "--dev", "eth1", "--table", "100", "--gateway", gateway, "--routes", routes])?;
    }
    let _guest = GuestPort::open(&"tap0".parse()?, Mac([0xaa, 0, 0, 0, 0, 2]))?;

    let names = ["--version", "ifup", "ifup again", "ifdown"];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        for (name, times) in names.iter().zip(&mut times) {
            let argument = name.split(' ').next().unwrap_or(name);
            times.push(run(&[argument])?);
            sleep(PAUSE);
        }
    }
    let medians = times.map(median);
    println!("ip-less-routed, IPv4 and IPv6, {RUNS} alternating runs, spawn to exit");
    println!("{:<12} {:>10} {:>18}", "", "median", "against --version");
    for (name, median) in names.iter().zip(medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{name:<12} {:>7.2} ms {ratio:>18.1}", median.as_secs_f64() * 1e3);
    }
    Ok(())
}
