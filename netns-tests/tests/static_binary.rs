//! The executable that README has built: it alone, with nothing but /proc and the folders that its settings name, does all that
//! it lists.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Test;
use crate::harness::build::STATIC;
use crate::harness::guest::WEB1;
use crate::harness::nameserver::{FORWARD, Kind, Lab};
use crate::harness::netns::Netns;
use crate::harness::nic::{Nic, Outcome};
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Files, Node, OUTSIDE, OUTSIDE6, Site, Wanted};
use crate::harness::xenstore::{Manners, Xenstore};

pub const TESTS: &[Test] = &[
    ("static_binary::every_command_in_an_empty_root", every_command_in_an_empty_root),
    ("static_binary::memory_is_not_in_the_file", memory_is_not_in_the_file),
];

const NAME: &str = "snf-network";
/// Of domain 7, in xenstore.
const STATUS: &str = "backend/vif/7/0/hotplug-status";

/// A folder that is to be a root, with what is mounted in it for as long as this value lives.
struct Root(PathBuf);

impl Root {
    /// With /proc, and the folders that the settings name.
    fn new(folder: PathBuf, xenstore: &Path) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let none = None::<&str>;
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), none).context("tmpfs")?;
        let root = Self(folder);
        for (source, place) in [(Path::new("/proc"), "proc"), (xenstore, "xenstore")] {
            let place = root.0.join(place);
            fs::create_dir(&place)?;
            mount(Some(source), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .with_context(|| source.display().to_string())?;
        }
        // The demo hides what is in /tmp.
        for place in ["nfdhcpd", "nic", "tmp"] {
            fs::create_dir(root.0.join(place))?;
        }
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // It goes with the mount namespace, at the latest.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The program in its root, on a node of a site, with a name server and a xenstore.
struct Alone {
    site: Site,
    names: Lab,
    store: Xenstore,
    root: Root,
    wire: Capture,
}

impl Alone {
    fn new() -> Result<Self> {
        // What sets up the uplink has to be the program in the root.
        let site = Site::with(Wanted { nodes: 1, uplink: false, tentative: false })?;
        let store = Xenstore::new(Manners::Good, &[("/local/domain/7/name", WEB1.name)])?;
        let root = Root::new(site.node.files.folder.join("root"), Path::new(&store.rundir()))?;
        let names = Lab::with(Kind::Bind, site.node.netns.again()?, Files::new()?)?;
        fs::copy(STATIC, root.0.join(NAME))?;
        fs::copy(&names.key, root.0.join("key"))?;
        fs::write(
            root.0.join("settings"),
            format!(
                "STATE_DIR=/state\nLOGFILE=/snf-network.log\nNFDHCPD_STATE_DIR=/nfdhcpd\nGANETI_NIC_DIR=/nic\n\
                 SERVER=127.0.0.1\nFZONE={FORWARD}\nKEYFILE=/key\n"
            ),
        )?;
        let wire = site.wire()?;
        Ok(Self { site, names, store, root, wire })
    }

    fn node(&self) -> &Node {
        &self.site.node
    }

    /// Runs the program under a name, with options separated by spaces.
    fn run(&self, name: &str, options: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
        self.run_in(&self.node().netns, name, options, variables)
    }

    /// The same, in another network namespace.
    fn run_in(&self, netns: &Netns, name: &str, options: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
        let link = self.root.0.join(name);
        if !link.exists() {
            symlink(NAME, &link)?;
        }
        let mut command = Command::new("chroot");
        command.arg(&self.root.0).arg(format!("/{name}")).args(options.split_whitespace());
        self.node().files.environment(&mut command).env("SNF_NETWORK_DEFAULTS", "/settings");
        command.envs(variables.iter().copied());
        Outcome::spawned(&mut command, |command| netns.run(|| command.spawn()))
    }

    fn run_for(&self, name: &str, options: &str, nic: &Nic) -> Result<Outcome> {
        let variables: Vec<_> = nic.variables().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.run(name, options, &variables)
    }

    fn nic(&self) -> Nic<'_> {
        self.node().nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd")
    }

    /// Sets the uplink up or takes it down.
    fn uplink(&self, verb: &str) -> Result<()> {
        for options in [Node::UPLINK, Node::UPLINK6] {
            let options = if verb == "up" { options } else { "--dev eth1" };
            self.run("node", &format!("{verb} {options}"), &[])?.succeeds()?;
        }
        Ok(())
    }

    /// Runs a command under all its names, the first of which says what it has to do.
    fn try_command(&self, names: &[String]) -> Result<()> {
        let trial = match names[0].as_str() {
            "ifup" | "ifdown" => Self::up_and_down,
            "vif-custom" => Self::vif_custom,
            "plan" => Self::plan,
            "node" => Self::uplink_and_help,
            "status" | "reconcile" | "gc" => Self::mended,
            "prv-net-helper" => Self::bridges,
            "dns" => Self::dns,
            "dnshook" => Self::dnshook,
            "hook" => Self::hook,
            "arpsend" | "ndsend" => Self::announce,
            "mac2eui64" => Self::mac2eui64,
            "log" => Self::log,
            "demo" => Self::demo,
            _ => bail!("there is no trial of this command: add one here"),
        };
        for name in names {
            trial(self, name).with_context(|| name.clone())?;
            // And what cannot be done is said in its words, if there is anything to do.
            let lost = self.run(NAME, &format!("{name} \u{1} \u{1}"), &[])?;
            let lost = if lost.code == Some(0) { lost.succeeds()? } else { lost.fails(&[])? };
            ensure!(lost.stderr.is_empty() || lost.stderr.starts_with(name), "{lost:?}");
        }
        Ok(())
    }

    fn up_and_down(&self, name: &str) -> Result<()> {
        let (up, down) = if name.contains("down") { ("ifup", name) } else { (name, "ifdown") };
        let guest = self.node().plug("tap0", WEB1)?;
        let before = Snapshot::of(&self.node().netns)?;
        self.wire.clear();
        for _ in 0..2 {
            self.run_for(up, "tap0", &self.nic())?.succeeds()?;
            guest.ping(OUTSIDE)?;
            guest.ping(OUTSIDE6)?;
        }
        // The announcements of the process that is left behind, too.
        self.wire.expect_count(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB1.ip), 3)?;
        self.run_for(down, "tap0 true", &self.nic())?.succeeds()?;
        before.returns_in(&self.node().netns, Snapshot::without_base_tables)?;
        self.node().unplug(guest, "tap0")
    }

    fn vif_custom(&self, name: &str) -> Result<()> {
        let guest = self.node().plug("vif7.0", WEB1)?;
        let before = Snapshot::of(&self.node().netns)?;
        let folder = self.root.0.join("nic").join(WEB1.name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("0"), self.nic().xen_file())?;
        let xen = [("vif", "vif7.0"), ("XENBUS_PATH", "backend/vif/7/0"), ("XENSTORED_RUNDIR", "/xenstore")];
        self.run(name, "online type_if=vif", &xen)?.succeeds()?;
        ensure!(self.store.written() == [(STATUS.to_owned(), "connected".to_owned())]);
        guest.ping(OUTSIDE)?;
        self.run(name, "offline type_if=vif", &xen)?.succeeds()?;
        before.returns_in(&self.node().netns, Snapshot::without_base_tables)?;
        self.node().unplug(guest, "vif7.0")
    }

    fn plan(&self, name: &str) -> Result<()> {
        let guest = self.node().plug("tap0", WEB1)?;
        let plan = self.run_for(name, "tap0", &self.nic())?.succeeds()?.stdout;
        for line in ["ip link set dev tap0 up\n", "ip -4 rule add iif tap0 lookup 100", "nft "] {
            ensure!(plan.contains(line), "no {line:?} in {plan}");
        }
        self.node().unplug(guest, "tap0")
    }

    fn uplink_and_help(&self, name: &str) -> Result<()> {
        let before = Snapshot::of(&self.node().netns)?;
        self.uplink("down")?;
        ensure!(!self.node().netns.ip("rule show")?.contains("iif eth1"), "the uplink is still there");
        self.uplink("up")?;
        before.returns_in(&self.node().netns, |state| state)?;
        let help = self.run(name, "--help", &[])?.succeeds()?.stdout;
        ensure!(help.contains("--arp-ip ADDRESS"), "{help}");
        Ok(())
    }

    /// status, reconcile and gc, each by what the others find or did.
    fn mended(&self, _: &str) -> Result<()> {
        let before = Snapshot::of(&self.node().netns)?;
        let guest = self.node().plug("tap0", WEB1)?;
        self.run_for("ifup", "tap0", &self.nic())?.succeeds()?;
        self.run("status", "", &[])?.succeeds()?;
        self.node().netns.ip("rule del iif tap0")?;
        let missing = self.run("status", "tap0", &[])?;
        ensure!(missing.code == Some(3) && missing.stdout.contains("missing: ip rule iif tap0"), "{missing:?}");
        self.run("reconcile", "", &[])?.succeeds()?;
        self.run("status", "", &[])?.succeeds()?;
        guest.ping(OUTSIDE)?;
        self.node().unplug(guest, "tap0")?;
        self.run("gc", "", &[])?.succeeds()?;
        before.returns_in(&self.node().netns, Snapshot::without_base_tables)?;
        ensure!(!self.root.0.join("state/tap0").exists(), "the record is still there");
        Ok(())
    }

    /// Not every kernel that this runs on has VLAN devices (bridges::stand_and_go makes some on Debian's own), so what is
    /// removed here is a bridge as it makes them.
    fn bridges(&self, name: &str) -> Result<()> {
        let netns = Netns::new()?;
        netns.ip_batch("link add prv1 group 218 type bridge\nlink add prv3 group 218 type bridge")?;
        let run = |verb: &str| self.run_in(&netns, name, &format!("{verb} eth0 1 2 2990"), &[]);
        run("up")?.fails(&["eth0: there is no such interface"])?;
        run("down")?.succeeds()?;
        let left = netns.ip("-o link show")?;
        ensure!(!left.contains("prv1") && left.contains("prv3"), "{left}");
        Ok(())
    }

    fn log(&self, name: &str) -> Result<()> {
        let options = if name == "log" { "a line of log" } else { "/a/script a line of script" };
        self.run(name, options, &[("INTERFACE", "tap0"), ("INSTANCE", WEB1.name)])?.succeeds()?;
        let speaker = if name == "log" { "log" } else { "script" };
        let expected = format!(" {speaker} tap0 {}: a line of {speaker}\n", WEB1.name);
        let log = fs::read_to_string(self.root.0.join("snf-network.log"))?;
        ensure!(log.contains(&expected), "no {expected:?} in {log}");
        Ok(())
    }

    fn dns(&self, name: &str) -> Result<()> {
        self.run(name, "sync --instance vm1 --ip 192.0.2.5", &[])?.succeeds()?;
        ensure!(self.names.dig("vm1.example.org A")? == "192.0.2.5");
        let shown = self.run(name, "show --instance vm1", &[])?.succeeds()?.stdout;
        ensure!(shown.contains("192.0.2.5"), "{shown}");
        self.run(name, "remove --instance vm1", &[])?.succeeds()?;
        ensure!(self.names.dig("vm1.example.org A")?.is_empty());
        let help = self.run(name, "--help", &[])?.succeeds()?.stdout;
        ensure!(help.contains("--instance NAME"), "{help}");
        Ok(())
    }

    fn dnshook(&self, name: &str) -> Result<()> {
        for (operation, expected) in [("OP_INSTANCE_STARTUP", "10.0.0.2"), ("OP_INSTANCE_SHUTDOWN", "")] {
            let nic = [
                ("GANETI_INSTANCE_NIC_COUNT", "1"),
                ("GANETI_INSTANCE_NIC0_IP", "10.0.0.2"),
                ("GANETI_INSTANCE_NIC0_MAC", "aa:00:00:12:34:56"),
                ("GANETI_INSTANCE_NIC0_MODE", "routed"),
                ("GANETI_INSTANCE_NIC0_NETWORK_TAGS", "dns"),
            ];
            self.after(name, operation, &nic)?;
            let held = self.names.dig(&format!("{} A", WEB1.name))?;
            ensure!(held == expected, "{operation}: {held:?}");
        }
        Ok(())
    }

    fn hook(&self, name: &str) -> Result<()> {
        let before = Snapshot::of(&self.node().netns)?;
        let guest = self.node().plug("tap0", WEB1)?;
        self.run_for("ifup", "tap0", &self.nic())?.succeeds()?;
        self.node().unplug(guest, "tap0")?;
        self.after(name, "OP_INSTANCE_SHUTDOWN", &[("GANETI_INSTANCE_NIC_COUNT", "0")])?;
        before.returns_in(&self.node().netns, Snapshot::without_base_tables)?;
        ensure!(!self.root.0.join("state/tap0").exists(), "the record is still there");
        Ok(())
    }

    /// Runs a hook of Ganeti, on WEB1's primary node.
    fn after(&self, name: &str, operation: &str, nic: &[(&str, &str)]) -> Result<()> {
        let host = nix::unistd::gethostname()?;
        let host = host.to_string_lossy();
        let mut variables = vec![
            ("GANETI_HOOKS_PHASE", "post"),
            ("GANETI_OP_CODE", operation),
            ("GANETI_INSTANCE_NAME", WEB1.name),
            ("GANETI_INSTANCE_PRIMARY", &host),
        ];
        variables.extend(nic);
        self.run(name, "", &variables)?.succeeds().map(drop)
    }

    fn announce(&self, name: &str) -> Result<()> {
        let (options, frame) = match name {
            "arpsend" => ("-U -i 10.0.0.9 eth1", "ARP, Request who-has 10.0.0.9 tell 10.0.0.9"),
            _ => ("2001:db8:1::9 eth1", "neighbor advertisement, tgt is 2001:db8:1::9"),
        };
        self.run(name, options, &[])?.succeeds()?;
        self.wire.expect(frame).map(drop)
    }

    fn mac2eui64(&self, name: &str) -> Result<()> {
        let printed = self.run(name, &format!("{} 2001:db8:1::/64", WEB1.mac), &[])?.succeeds()?.stdout;
        ensure!(printed == format!("{}\n", WEB1.ip6), "{printed}");
        Ok(())
    }

    fn demo(&self, name: &str) -> Result<()> {
        let demo = self.run(name, "", &[])?.succeeds()?;
        ensure!(demo.stdout.contains("steps are ok"), "{demo:?}");
        Ok(())
    }
}

/// The commands that `--help` lists, each with all its names.
fn listed(help: &str) -> Result<Vec<Vec<String>>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(also) = line.trim().strip_prefix("(also ").and_then(|it| it.strip_suffix(')')) {
            let command = commands.last_mut().context("a command of other names")?;
            command.extend(also.split(", ").map(str::to_owned));
        } else {
            commands.push(line.split_whitespace().take(1).map(str::to_owned).collect());
        }
    }
    Ok(commands)
}

fn every_command_in_an_empty_root() -> Result<()> {
    let alone = Alone::new()?;
    let version = alone.run(NAME, "--version", &[])?.succeeds()?.stdout;
    ensure!(version == concat!("snf-network ", env!("CARGO_PKG_VERSION"), "\n"), "{version}");
    let commands = listed(&alone.run(NAME, "--help", &[])?.succeeds()?.stdout)?;
    // As many as README's table of links has, at the least.
    ensure!(commands.iter().flatten().count() >= 24, "{commands:?}");
    alone.uplink("up")?;
    alone.node().settled("eth1")?;
    for names in commands {
        alone.try_command(&names).with_context(|| names[0].clone())?;
    }
    Ok(())
}

/// The allocator's memory is zeros, which the kernel provides (.bss): a byte of it that is not makes all of it a part of the file, from
/// where each run would read it.
fn memory_is_not_in_the_file() -> Result<()> {
    let file = fs::read(STATIC)?;
    let number = |at: usize, length: usize| -> Result<usize> {
        let bytes = file.get(at..at + length).context("an ELF file cut short")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    // Of the header, e_phoff, e_phentsize and e_phnum; of each program header, PT_LOAD, PF_W, p_filesz and p_memsz (elf(5)).
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut writable = Vec::new();
    for header in (0..count).map(|place| headers + place * size) {
        if number(header, 4)? == 1 && number(header + 4, 4)? & 2 != 0 {
            writable.push((number(header + 32, 8)?, number(header + 40, 8)?));
        }
    }
    let (in_file, in_memory) = writable.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    ensure!(in_memory > 1024 * 1024, "expected the allocator's memory in {writable:?}");
    ensure!(in_file < 512 * 1024, "{in_file} bytes of the file are writable, expected constants only: {writable:?}");
    Ok(())
}
