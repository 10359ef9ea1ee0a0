//! Who calls: Ganeti's hooks, and ifup and ifdown with the process that they leave behind.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::nameserver::{CLASSLESS, FORWARD, Kind, Lab, REVERSE, REVERSE6};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::topology::{Files, Node, Site};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("dns_hook::each_operation", each_operation),
    ("dns_hook::a_rename", a_rename),
    ("dns_hook::only_the_primary_and_only_its_operations", only_the_primary_and_only_its_operations),
    ("dns_hook::two_instances_swap_addresses_at_once", two_instances_swap_addresses_at_once),
    ("dns_hook::many_hooks_of_one_instance_at_once", many_hooks_of_one_instance_at_once),
    ("dns_hook::ifup_adds_and_ifdown_removes", ifup_adds_and_ifdown_removes),
    ("dns_hook::nobody_waits_for_a_name_server", nobody_waits_for_a_name_server),
    ("dns_hook::two_processes_are_left_at_most", two_processes_are_left_at_most),
    ("dns_hook::a_hook_replaces_what_waits", a_hook_replaces_what_waits),
    ("dns_hook::a_removal_spares_the_instance_on_another_tap", a_removal_spares_the_instance_on_another_tap),
    ("dns_hook::a_name_server_that_is_down_is_no_failure", a_name_server_that_is_down_is_no_failure),
];

/// A hook of Ganeti, on the primary unless told otherwise; of an instance with one NIC.
fn hook(lab: &Lab, operation: &str, name: &str, ip: &str, more: &[(&str, &str)]) -> Result<Outcome> {
    let host = nix::unistd::gethostname()?;
    let host = host.to_string_lossy();
    let mut variables = vec![
        ("GANETI_HOOKS_PHASE", "post"),
        ("GANETI_OP_CODE", operation),
        ("GANETI_INSTANCE_NAME", name),
        ("GANETI_INSTANCE_PRIMARY", &host),
        ("GANETI_INSTANCE_NIC_COUNT", "2"),
        ("GANETI_INSTANCE_NIC0_IP", ip),
        ("GANETI_INSTANCE_NIC0_MAC", "aa:00:00:00:00:01"),
        ("GANETI_INSTANCE_NIC0_MODE", "routed"),
        ("GANETI_INSTANCE_NIC0_NETWORK_TAGS", "ip-less-routed dns"),
        ("GANETI_INSTANCE_NIC0_NETWORK_SUBNET6", "None"),
        // Not tagged, so none of the server's business.
        ("GANETI_INSTANCE_NIC1_IP", "192.0.2.250"),
        ("GANETI_INSTANCE_NIC1_MAC", "aa:00:00:00:00:02"),
    ];
    variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    variables.extend(more);
    lab.files.run_with(&lab.netns, &["snf-network-dnshook"], &variables)
}

fn each_operation() -> Result<()> {
    let lab = Lab::new()?;
    let holds = |expected: &str| -> Result<()> {
        let name = if expected.is_empty() { "" } else { "vm1.example.org." };
        ensure!(lab.dig("vm1.example.org A")? == expected, "{expected}: {:?}", lab.changes(FORWARD)?);
        for last in [5, 6] {
            let own = expected.contains(&format!("192.0.2.{last}"));
            ensure!(lab.dig(&format!("-x 192.0.2.{last}"))? == if own { name } else { "" }, "{expected}");
        }
        ensure!(lab.dig(&format!("250.{CLASSLESS} PTR"))?.is_empty());
        Ok(())
    };
    for add in ["OP_INSTANCE_CREATE", "OP_INSTANCE_STARTUP", "OP_INSTANCE_REBOOT"] {
        for remove in ["OP_INSTANCE_REMOVE", "OP_INSTANCE_SHUTDOWN"] {
            hook(&lab, add, "vm1", "192.0.2.5", &[])?.succeeds()?;
            holds("192.0.2.5")?;
            hook(&lab, add, "vm1", "192.0.2.5", &[])?.succeeds()?;
            holds("192.0.2.5")?;
            // The server knows what there was; the NICs may be others by now, or unreadable.
            hook(&lab, remove, "vm1", "192.0.2.6", &[("GANETI_INSTANCE_NIC_COUNT", "many")])?.succeeds()?;
            holds("")?;
            hook(&lab, remove, "vm1", "192.0.2.5", &[])?.succeeds()?;
        }
    }
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "192.0.2.5", &[])?.succeeds()?;
    holds("192.0.2.5")?;
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "192.0.2.6", &[])?.succeeds()?;
    holds("192.0.2.6")?;
    let subnet = [("GANETI_INSTANCE_NIC0_NETWORK_SUBNET6", "2001:db8::/64")];
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "192.0.2.6", &subnet)?.succeeds()?;
    ensure!(lab.dig("vm1.example.org AAAA")? == "2001:db8::a800:ff:fe00:1");
    // NICs that cannot be understood are not "no NICs".
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "192.0.2", &[])?.fails(&["NIC 0: IP \"192.0.2\""])?;
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "None", &[("GANETI_INSTANCE_NIC_COUNT", "None")])?
        .fails(&["GANETI_INSTANCE_NIC_COUNT is not set"])?;
    holds("192.0.2.6")?;
    hook(&lab, "OP_INSTANCE_SET_PARAMS", "vm1", "None", &[])?.succeeds()?;
    holds("")?;
    ensure!(lab.changes(REVERSE6)?.is_empty());
    let log = lab.log()?;
    ensure!(
        log.contains("post OP_INSTANCE_SET_PARAMS dnshook vm1: dns: zone")
            || log.contains("post OP_INSTANCE_SET_PARAMS snf-network-dnshook vm1: dns: zone"),
        "{log}"
    );
    Ok(())
}

fn a_rename() -> Result<()> {
    let lab = Lab::new()?;
    hook(&lab, "OP_INSTANCE_STARTUP", "vm1", "192.0.2.5", &[])?.succeeds()?;
    let new = [("GANETI_INSTANCE_NEW_NAME", "vm2.child.example.org")];
    hook(&lab, "OP_INSTANCE_RENAME", "vm1", "192.0.2.5", &new)?.succeeds()?;
    ensure!(lab.dig("vm1.example.org A")?.is_empty());
    ensure!(lab.dig("vm2.child.example.org A")? == "192.0.2.5");
    ensure!(lab.dig("-x 192.0.2.5")? == "vm2.child.example.org.");
    hook(&lab, "OP_INSTANCE_RENAME", "vm1", "192.0.2.5", &[])?.fails(&["GANETI_INSTANCE_NEW_NAME is not set"])?;
    Ok(())
}

fn only_the_primary_and_only_its_operations() -> Result<()> {
    let lab = Lab::new()?;
    let add = "OP_INSTANCE_STARTUP";
    for primary in ["elsewhere", "None", ""] {
        hook(&lab, add, "vm1", "192.0.2.5", &[("GANETI_INSTANCE_PRIMARY", primary)])?.succeeds()?;
    }
    for operation in ["OP_INSTANCE_MIGRATE", "OP_INSTANCE_FAILOVER", "OP_CLUSTER_VERIFY", "", "op_instance_startup"] {
        // Not even the settings are looked at, nor the name.
        hook(&lab, operation, "..", "192.0.2.5", &[])?.succeeds()?;
    }
    ensure!(lab.changes(FORWARD)?.is_empty() && lab.log()?.is_empty());
    let host = nix::unistd::gethostname()?;
    let short = host.to_string_lossy().split('.').next().unwrap_or_default().to_owned();
    let full = [(
        "GANETI_INSTANCE_PRIMARY",
        if host.to_string_lossy().contains('.') { short } else { short + ".example.org" },
    )];
    let full = full.each_ref().map(|(name, value)| (*name, value.as_str()));
    hook(&lab, add, "vm1", "192.0.2.5", &full)?.succeeds()?;
    ensure!(lab.dig("vm1.example.org A")? == "192.0.2.5");
    Ok(())
}

fn two_instances_swap_addresses_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let set = |name: &str, ip: &str| hook(&lab, "OP_INSTANCE_SET_PARAMS", name, ip, &[])?.succeeds();
    for round in 0..8 {
        let (a, b) = if round % 2 == 0 { ("192.0.2.5", "192.0.2.6") } else { ("192.0.2.6", "192.0.2.5") };
        thread::scope(|scope| {
            let other = scope.spawn(|| set("vm2", b));
            set("vm1", a)?;
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        for (name, ip) in [("vm1", a), ("vm2", b)] {
            ensure!(lab.dig(&format!("{name}.example.org A"))? == ip, "round {round}");
            ensure!(
                lab.dig(&format!("-x {ip}"))? == format!("{name}.example.org."),
                "round {round}: {:?}",
                lab.changes(REVERSE)?
            );
        }
    }
    Ok(())
}

fn many_hooks_of_one_instance_at_once() -> Result<()> {
    let lab = Lab::new()?;
    // Whoever comes last wins, but no mixture does. One that is overtaken three times says so.
    thread::scope(|scope| {
        let lab = &lab;
        let runs: Vec<_> = (1..6)
            .map(|n| scope.spawn(move || hook(lab, "OP_INSTANCE_SET_PARAMS", "vm1", &format!("192.0.2.{n}"), &[])))
            .collect();
        for run in runs {
            let outcome = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure!(
                outcome.code == Some(0) || outcome.stderr.contains("somebody else changed it meanwhile"),
                "{outcome:#?}"
            );
        }
        Ok(())
    })?;
    let holds = lab.dig("vm1.example.org A")?;
    ensure!(!holds.is_empty() && !holds.contains(' '), "{holds}");
    ensure!(lab.dig(&format!("-x {holds}"))? == "vm1.example.org.");
    Ok(())
}

/// A site whose node has a name server of its own beside it, on loopback.
struct Tagged {
    site: Site,
    lab: Lab,
}

impl Tagged {
    fn new() -> Result<Self> {
        let site = Site::new()?;
        // The same namespace and the same files as the node's.
        let netns = site.node.netns.again()?;
        let lab = Lab::with(Kind::Bind, netns, Files::new()?)?;
        let settings = fs::read_to_string(lab.files.settings())?;
        let dns: Vec<_> =
            settings.lines().filter(|line| !line.contains("_DIR=") && !line.starts_with("LOGFILE")).collect();
        site.node.files.set(&dns.join("\n"))?;
        Ok(Self { site, lab })
    }

    fn node(&self) -> &Node {
        &self.site.node
    }

    /// The instance's NIC on a TAP.
    fn nic(&self, tap: &str) -> Nic<'_> {
        self.node().nic(tap, WEB1).set("INSTANCE", "web1").set("NETWORK_TAGS", "ip-less-routed dns")
    }

    /// How many processes of the program there are; the name server is in this namespace too.
    fn left(&self) -> Result<usize> {
        let name = |process: &PathBuf| fs::read_to_string(process.join("comm")).unwrap_or_default();
        Ok(self.node().netns.processes()?.iter().filter(|it| name(it) == "snf-network\n").count())
    }

    /// Waits for all that was left to be done; then the name server has these addresses for the guest.
    fn ends_with(&self, expected: &str) -> Result<()> {
        until("all that was left to be done", || Ok(self.left()? == 0))?;
        let found = self.lab.dig("web1.example.org A")?;
        ensure!(found == expected, "{found:?}, expected {expected:?}: {}", self.log()?);
        Ok(())
    }

    /// The addresses that the name server has for the guest, when it has come to that.
    fn comes_to(&self, expected: &str) -> Result<()> {
        until("the name server's records", || Ok(self.lab.dig("web1.example.org A")? == expected))
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.node().files.log()).unwrap_or_default())
    }
}

fn ifup_adds_and_ifdown_removes() -> Result<()> {
    let tagged = Tagged::new()?;
    let node = tagged.node();
    let _guest = node.plug("tap0", WEB1)?;
    let nic = || node.nic("tap0", WEB1).set("INSTANCE", "web1").set("NETWORK_TAGS", "ip-less-routed dns");
    let ip = WEB1.ip.to_string();
    node.nic("tap0", WEB1).set("INSTANCE", "web1").ifup()?.succeeds()?;
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(tagged.lab.changes(FORWARD)?.is_empty(), "no tag, no records");

    nic().ifup()?.succeeds()?;
    tagged.comes_to(&ip)?;
    // Only the word that says so takes them away, and not when the guest lives on elsewhere.
    for cleanup in [&[][..], &["true"], &["TRUE"], &["Yes"], &["1"], &[""]] {
        let outcome = nic().down_with(cleanup)?.succeeds()?;
        ensure!(outcome.stderr.is_empty(), "{outcome:?}");
        nic().ifup()?.succeeds()?;
    }
    for cleanup in ["Falsch", "false ", "2"] {
        let outcome = nic().down_with(&[cleanup])?.succeeds()?;
        let warned = outcome.stderr.contains("warning: CLEANUP ") && outcome.stderr.contains("expected true or false");
        ensure!(warned && tagged.log()?.contains("warning: CLEANUP "), "{cleanup:?}: {outcome:?}");
        nic().ifup()?.succeeds()?;
    }
    for phase in ["pre", "post"] {
        nic().set("MIGRATION_PHASE", phase).down_with(&["false"])?.succeeds()?;
        nic().ifup()?.succeeds()?;
    }
    thread::sleep(Duration::from_millis(300));
    tagged.comes_to(&ip)?;
    ensure!(!tagged.log()?.contains("removed web1"), "{}", tagged.log()?);
    for cleanup in ["false", "False", "NO", "0"] {
        nic().down_with(&[cleanup])?.succeeds()?;
        tagged.comes_to("")?;
        nic().ifup()?.succeeds()?;
        tagged.comes_to(&ip)?;
    }
    // Exactly this NIC's: another one's stay, and so does what the instance has besides.
    tagged.lab.netns.fed(
        std::process::Command::new("nsupdate").arg("-k").arg(&tagged.lab.key),
        "server 127.0.0.1\nupdate add web1.example.org 5 A 192.0.2.40\nupdate add web1.example.org 5 TXT x\nsend\n",
    )?;
    nic().down_with(&["false"])?.succeeds()?;
    tagged.comes_to("192.0.2.40")?;
    ensure!(tagged.lab.dig("web1.example.org TXT")? == "\"x\"");
    Ok(())
}

fn nobody_waits_for_a_name_server() -> Result<()> {
    let tagged = Tagged::new()?;
    let _guest = tagged.node().plug("tap0", WEB1)?;
    let nic = || tagged.node().nic("tap0", WEB1).set("INSTANCE", "web1").set("NETWORK_TAGS", "ip-less-routed dns");
    tagged.lab.signal(Signal::SIGSTOP)?;
    let start = Instant::now();
    for _ in 0..3 {
        nic().ifup()?.succeeds()?;
        nic().down_with(&["false"])?.succeeds()?;
    }
    nic().ifup()?.succeeds()?;
    let taken = start.elapsed();
    tagged.lab.signal(Signal::SIGCONT)?;
    ensure!(taken < Duration::from_secs(4), "{taken:?} for seven runs, so one waited");
    // One talked to the server, one waited; the newest change replaced all others.
    tagged.ends_with(&WEB1.ip.to_string())?;
    ensure!(tagged.log()?.matches("dns: zone example.org: ").count() <= 2, "{}", tagged.log()?);
    Ok(())
}

/// However many changes there are of an instance, two processes are left: one that talks to the server, and one that waits.
fn two_processes_are_left_at_most() -> Result<()> {
    let tagged = Tagged::new()?;
    let node = tagged.node();
    let _guest = node.plug("tap0", WEB1)?;
    let nic = || tagged.nic("tap0").set("NETWORK_SUBNET6", "2001:db8:1::/64");
    tagged.lab.signal(Signal::SIGSTOP)?;
    for _ in 0..8 {
        nic().ifup()?.succeeds()?;
    }
    // Announcers end by themselves.
    let left = until("no more than two processes", || Ok(tagged.left()? <= 2));
    let processes = tagged.left()?;
    tagged.lab.signal(Signal::SIGCONT)?;
    left?;
    ensure!(processes == 2, "{processes} processes are left");
    tagged.ends_with(&WEB1.ip.to_string())
}

/// An instance that is removed while an ifup of it waits: its name must not come back.
fn a_hook_replaces_what_waits() -> Result<()> {
    let tagged = Tagged::new()?;
    let node = tagged.node();
    let _guest = node.plug("tap0", WEB1)?;
    tagged.lab.signal(Signal::SIGSTOP)?;
    // The first one talks to the server, the second one waits.
    tagged.nic("tap0").ifup()?.succeeds()?;
    let queue = node.files.state().join("locks-of-interfaces/web1.example.org.dns");
    until("the first change to be sent", || Ok(fs::read_to_string(&queue)?.is_empty()))?;
    tagged.nic("tap0").ifup()?.succeeds()?;
    ensure!(fs::read_to_string(&queue)?.starts_with("add web1.example.org "), "nothing waits");
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let variables = [
        ("GANETI_HOOKS_PHASE", "post"),
        ("GANETI_OP_CODE", "OP_INSTANCE_REMOVE"),
        ("GANETI_INSTANCE_NAME", "web1"),
        ("GANETI_INSTANCE_PRIMARY", host.as_str()),
    ];
    let outcome = thread::scope(|scope| {
        let hook = scope.spawn(|| node.files.run_with(&node.netns, &["snf-network-dnshook"], &variables));
        let replaced = until("the hook to replace it", || Ok(fs::read_to_string(&queue)?.is_empty()));
        tagged.lab.signal(Signal::SIGCONT)?;
        replaced?;
        hook.join().map_err(|_| anyhow::anyhow!("the hook's thread"))?
    });
    outcome?.succeeds()?;
    tagged.ends_with("")
}

/// An instance that went to another TAP: what its old TAP's ifdown left to be removed is its address.
fn a_removal_spares_the_instance_on_another_tap() -> Result<()> {
    let tagged = Tagged::new()?;
    let node = tagged.node();
    let _guests = [node.plug("tap0", WEB1)?, node.plug("tap1", WEB1)?];
    let ip = WEB1.ip.to_string();
    tagged.nic("tap0").ifup()?.succeeds()?;
    tagged.ends_with(&ip)?;
    tagged.lab.signal(Signal::SIGSTOP)?;
    tagged.nic("tap0").ifup()?.succeeds()?;
    tagged.nic("tap0").down_with(&["false"])?.succeeds()?;
    tagged.nic("tap1").ifup()?.succeeds()?;
    tagged.lab.signal(Signal::SIGCONT)?;
    tagged.ends_with(&ip)
}

fn a_name_server_that_is_down_is_no_failure() -> Result<()> {
    let mut tagged = Tagged::new()?;
    tagged.lab.stop();
    let _guest = tagged.node().plug("tap0", WEB1)?;
    let nic = || tagged.node().nic("tap0", WEB1).set("INSTANCE", "web1").set("NETWORK_TAGS", "ip-less-routed dns");
    nic().ifup()?.succeeds()?;
    until("the log to tell", || {
        Ok(tagged.log()?.contains("ifup tap0 web1: warning: dns: 127.0.0.1:53: connect: Connection refused"))
    })?;
    nic().down_with(&["false"])?.succeeds()?;
    until("the log to tell", || Ok(tagged.log()?.contains("ifdown tap0 web1: warning: dns: 127.0.0.1:53")))?;
    tagged.node().files.set("KEYFILE=/nonexistent")?;
    nic().ifup()?.succeeds()?;
    ensure!(
        tagged.log()?.contains("warning: dns: KEYFILE: key file \"/nonexistent\": No such file"),
        "{}",
        tagged.log()?
    );
    Ok(())
}
