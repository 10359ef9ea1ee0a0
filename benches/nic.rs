//! Latency of a NIC, whole process from spawn to exit, against that of the program doing nothing, in one run.
//!
//! `cargo bench`. In namespaces of its own; needs no root where /dev/net/tun is open to the caller (else veth pairs serve).
//! Times are medians of alternating runs; believe the ratios, the machine is noisy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use snf_network::addr::{IfName, Mac};
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::{Netns, enter_private};
use snf_network::kernel::topology::{add_veth, set_up};

const PROGRAM: &str = env!("CARGO_BIN_EXE_snf-network");
const RUNS: usize = 50;
/// Longer than the detached process lingers, so that one run's grace period is not another one's wait.
const PAUSE: Duration = Duration::from_millis(130);

const ROUTED: &[(&str, &str)] = &[
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
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    // What an earlier run left is of another namespace.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let settings = folder.join("settings");
    fs::write(&settings, format!("STATE_DIR={0}/state\nLOGFILE={0}/log\n", folder.display()))?;

    let router = Netns::new()?;
    let (eth1, far): (IfName, IfName) = ("eth1".parse()?, "far".parse()?);
    add_veth((&eth1, Mac([2, 0, 0, 0, 1, 1])), (&far, Mac([2, 0, 0, 0, 1, 2])), &router)?;
    router.run(|| set_up(&far))?;
    for (gateway, routes) in [("10.0.0.1", "10.0.0.0/24"), ("2001:db8:1::1", "2001:db8:1::/64")] {
        let uplink = ["node", "up", "--dev", "eth1", "--table", "100", "--gateway", gateway, "--routes", routes];
        run(&uplink, &settings)?;
    }
    let _guest = GuestPort::open(&"tap0".parse()?, Mac([0xaa, 0, 0, 0, 0, 2]))?;

    let names = ["--version", "ifup", "ifup again", "ifdown"];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        for (name, times) in names.iter().zip(&mut times) {
            let argument = name.split(' ').next().unwrap_or(name);
            times.push(run(&[argument], &settings)?);
            sleep(PAUSE);
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[RUNS / 2]
    });
    println!("ip-less-routed, IPv4 and IPv6, {RUNS} alternating runs, spawn to exit");
    println!("{:<12} {:>10} {:>18}", "", "median", "against --version");
    for (name, median) in names.iter().zip(medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{name:<12} {:>7.2} ms {ratio:>18.1}", median.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn run(arguments: &[&str], settings: &Path) -> Result<Duration> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("SNF_NETWORK_DEFAULTS", settings);
    command.env("INTERFACE", "tap0").env("INSTANCE", "web1.example.org").env("MAC", "aa:00:00:00:00:02");
    command.env("INTERFACE_UUID", "c0ffee").envs(ROUTED.iter().copied()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| PROGRAM)?;
    let taken = started.elapsed();
    ensure!(status.success(), "{arguments:?}: {status}");
    Ok(taken)
}
