//! The Debian package: built by cargo-deb, judged by lintian and systemd, installed, used, upgraded, removed and purged in a
//! root of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::pages;
use crate::Test;
use crate::harness::Skip;
use crate::harness::build::{self, PROFILE, TRIPLE, cargo};
use crate::harness::guest::WEB1;
use crate::harness::netns::Netns;
use crate::harness::nic::{Nic, Outcome};
use crate::harness::topology::{OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[("package::lives_and_goes", lives_and_goes)];

/// The program, as the links name it.
const PROGRAM: &str = "/usr/sbin/snf-network";
/// Two of the places that the administrator may want for himself.
const OWN: &str = "etc/ganeti/network/bridged/up";
const UNWANTED: &str = "etc/xen/scripts/vif-custom";
/// A script of the old packages.
const OLD: &str = "etc/ganeti/kvm-ifup-custom";
const OLD_SCRIPT: &str = "#!/bin/bash\nsource /usr/lib/snf-network/common.sh\n";

/// Builds the package around the static program.
pub fn built(folder: &Path) -> Result<PathBuf> {
    pages::made::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages"))?;
    let package = folder.join("snf-network.deb");
    let mut cargo = cargo();
    cargo.args(["deb", "--no-build", "--fast", "--locked", "--offline", "--profile", PROFILE, "--target", TRIPLE]);
    let output =
        cargo.env("CARGO_TARGET_DIR", build::folder()).arg("--output").arg(&package).output().context("cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("no such command") || said.contains("no such subcommand") {
        return Err(Skip("cargo deb: not installed (cargo install cargo-deb)".to_owned()).into());
    }
    ensure!(output.status.success() && !said.contains("warning"), "{cargo:?}: {said}");
    Ok(package)
}

/// A root with nothing in it but links to this machine's programs, and a dpkg that knows of no package.
struct Tree(PathBuf);

impl Tree {
    fn new(folder: PathBuf) -> Result<Self> {
        let folders = ["dev", "proc", "host", "etc/systemd/system", "usr/lib", "usr/share", "var/lib/dpkg/info"];
        for name in folders.into_iter().chain(["var/lib/systemd", "var/log/ganeti"]) {
            fs::create_dir_all(folder.join(name))?;
        }
        let mut links = vec!["usr/bin".to_owned(), "usr/lib64".to_owned(), "usr/share/perl5".to_owned()];
        // Libraries, the dynamic linker's and perl's.
        for entry in fs::read_dir("/usr/lib")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with("-linux-gnu") {
                links.push(format!("usr/lib/{name}"));
            }
        }
        for link in links {
            symlink(format!("/host/{link}"), folder.join(link))?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), folder.join(name))?;
        }
        // What is essential is always there.
        let status = "Package: init-system-helpers\nStatus: install ok installed\nVersion: 9\nArchitecture: all\n\
                      Maintainer: nobody <nobody@localhost>\nDescription: deb-systemd-helper\n";
        fs::write(folder.join("var/lib/dpkg/status"), status)?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.trim_start_matches('/'))
    }

    /// A command that sees this machine's files below /host of the tree. They are mounted for it alone: nothing that is
    /// mounted is left in a folder which the test removes.
    fn seeing_host(&self) -> Command {
        let mount =
            "mount --rbind / \"$0/host\"; for it in proc dev; do mount --rbind /$it \"$0/$it\"; done; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", mount]).arg(&self.0);
        command
    }

    /// `dpkg` with arguments; what it printed.
    fn dpkg(&self, arguments: &[&str], package: &Path) -> Result<String> {
        let mut command = self.seeing_host();
        command.args(["dpkg", "--force-confold", "--force-bad-path", "--log=/dev/null"]);
        command.arg(format!("--root={}", self.0.display())).args(arguments).arg(package);
        let output = command.env("DEBIAN_FRONTEND", "noninteractive").output()?;
        let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned()).concat();
        ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
        Ok(said)
    }

    /// Runs a program of the tree, which is its root, with a NIC.
    fn run(&self, nic: Nic, words: &[&str]) -> Result<Outcome> {
        // The settings are those that were installed.
        nic.set("SNF_NETWORK_DEFAULTS", "").finish(self.seeing_host().arg("chroot").arg(&self.0).args(words))
    }

    /// Every file, link and folder but dpkg's own, with what it holds or where it leads.
    fn content(&self) -> Result<BTreeMap<PathBuf, String>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let kind = fs::symlink_metadata(&path)?;
                let held = if kind.is_symlink() {
                    fs::read_link(&path)?.display().to_string()
                } else if kind.is_dir() {
                    folders.push(path.clone());
                    "a folder".to_owned()
                } else {
                    String::from_utf8_lossy(&fs::read(&path)?).into_owned()
                };
                let name = path.strip_prefix(&self.0)?.to_owned();
                if !name.starts_with("var/lib/dpkg") {
                    found.insert(name, format!("{:o} {held}", kind.permissions().mode()));
                }
            }
        }
        Ok(found)
    }

    /// That these are its files, and no others.
    fn holds(&self, expected: &BTreeMap<PathBuf, String>) -> Result<()> {
        let found = self.content()?;
        let gone: Vec<_> = expected.iter().filter(|it| found.get(it.0) != Some(it.1)).collect();
        let left: Vec<_> = found.iter().filter(|it| expected.get(it.0) != Some(it.1)).collect();
        ensure!(gone.is_empty() && left.is_empty(), "gone: {gone:#?}\nleft: {left:#?}");
        Ok(())
    }

    fn leads_to_program(&self, link: &str) -> bool {
        fs::read_link(self.path(link)).is_ok_and(|it| it == Path::new(PROGRAM))
    }
}

/// The places in /etc.
fn links() -> Result<Vec<String>> {
    Ok(fs::read_to_string(pages::packaging("debian/links"))?.lines().map(str::to_owned).collect())
}

fn judged_by_lintian(package: &Path) -> Result<()> {
    let output = pages::run(Command::new("lintian").args(["--fail-on", "error"]).arg(package))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !said.contains("unused-override"), "{said}");
    Ok(())
}

fn judged_by_systemd(tree: &Tree) -> Result<()> {
    pages::run(Command::new("systemd-analyze").arg("--version"))?;
    let mut analyze = tree.seeing_host();
    analyze
        .args(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"])
        .arg(format!("--root={}", tree.0.display()));
    let units = ["snf-network-reconcile.service", "snf-network-node@eth1.service", "snf-network-reconcile.timer"];
    let output = pages::run(analyze.args(units))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{analyze:?}: {said}");
    for link in
        ["multi-user.target.wants/snf-network-reconcile.service", "timers.target.wants/snf-network-reconcile.timer"]
    {
        ensure!(tree.path("etc/systemd/system").join(link).is_symlink(), "{link} is not there");
    }
    Ok(())
}

fn serves_a_guest(tree: &Tree, site: &Site) -> Result<()> {
    let netns: &Netns = &site.node.netns;
    let guest = site.node.plug("tap0", WEB1)?;
    let nic = || site.node.nic("tap0", WEB1);
    tree.run(nic(), &["/etc/ganeti/kvm-ifup-custom", "tap0"])?.succeeds()?;
    let (rules, ruleset) = (netns.ip("-4 rule show")?, netns.output(Command::new("nft").args(["list", "ruleset"]))?);
    ensure!(rules.contains("iif tap0 lookup 100"), "{rules}");
    ensure!(ruleset.contains("\"tap0\""), "{ruleset}");
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    ensure!(tree.path("var/lib/snf-network/tap0").is_file(), "nothing is recorded");
    let log = fs::read_to_string(tree.path("var/log/ganeti/snf-network.log"))?;
    ensure!(log.contains("kvm-ifup-custom tap0 web1.example.org: "), "{log}");
    // Ganeti 3.2's name for the same.
    tree.run(nic().set("ACTION", "down"), &["/etc/ganeti/network/routed/down", "tap0"])?.succeeds()?;
    let rules = netns.ip("-4 rule show")?;
    ensure!(!rules.contains("iif tap0"), "{rules}");
    Ok(())
}

fn lives_and_goes() -> Result<()> {
    let site = Site::new()?;
    let folder = &site.node.files.folder;
    let package = built(folder)?;
    judged_by_lintian(&package)?;
    let tree = Tree::new(folder.join("root"))?;
    // What the administrator has: a script of his own, one of the old package, settings of the other old one.
    fs::create_dir_all(tree.path("etc/ganeti/network/bridged"))?;
    fs::create_dir_all(tree.path("etc/default"))?;
    fs::write(tree.path(OWN), "#!/bin/sh\n# my own\n")?;
    fs::write(tree.path(OLD), OLD_SCRIPT)?;
    fs::write(tree.path("etc/default/gnt-networking"), "TTL=60\n")?;
    let before = tree.content()?;

    let said = tree.dpkg(&["--install"], &package)?;
    ensure!(said.contains(&format!("/{OWN} is there already")), "{said}");
    ensure!(said.contains("kvm-ifup-custom.dpkg-old"), "{said}");
    for link in links()?.iter().filter(|link| !link.ends_with(OWN)) {
        ensure!(tree.leads_to_program(link), "{link}");
    }
    ensure!(!tree.path("etc/ganeti/network/ext").exists(), "mode ext is not ours");
    ensure!(fs::read_to_string(tree.path("etc/default/snf-network"))? == "TTL=60\n", "the settings that were there");
    let mode = fs::metadata(tree.path("var/lib/snf-network"))?.permissions().mode();
    ensure!(mode & 0o7777 == 0o755, "{mode:o}");
    judged_by_systemd(&tree)?;
    serves_a_guest(&tree, &site)?;

    // What he changes stays as it is through an upgrade, and through a removal from which the package comes back.
    fs::remove_file(tree.path(UNWANTED))?;
    for again in [false, true] {
        if again {
            tree.dpkg(&["--remove"], Path::new("snf-network"))?;
            let left = links()?.into_iter().find(|link| tree.path(link).is_symlink());
            ensure!(left.is_none(), "{left:?} leads nowhere");
        }
        tree.dpkg(&["--install"], &package)?;
        for link in links()?.iter().filter(|link| !link.ends_with(OWN) && !link.ends_with(UNWANTED)) {
            ensure!(tree.leads_to_program(link), "{link}, again: {again}");
        }
        ensure!(!tree.path(UNWANTED).is_symlink(), "{UNWANTED} is back, again: {again}");
        ensure!(fs::read_to_string(tree.path(OWN))?.contains("my own"), "{OWN}, again: {again}");
    }

    tree.dpkg(&["--purge"], Path::new("snf-network"))?;
    // The old script, which could not run any more, is kept under another name.
    let mut expected = before;
    let old = expected.remove(Path::new(OLD)).context("the old script")?;
    expected.insert(format!("{OLD}.dpkg-old").into(), old);
    tree.holds(&expected)?;

    takes_the_old_packages_place(&tree, folder, &package)?;
    tree.holds(&expected)
}

/// From the old package of the same name: what it had of ours to come is replaced, and goes with ours.
fn takes_the_old_packages_place(tree: &Tree, folder: &Path, package: &Path) -> Result<()> {
    let old = folder.join("old");
    for name in ["DEBIAN", "etc/ganeti/hooks/instance-stop-post.d", "usr/lib/snf-network"] {
        fs::create_dir_all(old.join(name))?;
        fs::set_permissions(old.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let control = "Package: snf-network\nVersion: 0.16-2~jessie\nArchitecture: all\n\
                   Maintainer: nobody <nobody@localhost>\nDescription: scripts\n";
    fs::write(old.join("DEBIAN/control"), control)?;
    fs::write(old.join("DEBIAN/conffiles"), format!("/{OLD}\n"))?;
    fs::write(old.join(OLD), OLD_SCRIPT)?;
    fs::write(old.join("usr/lib/snf-network/common.sh"), "")?;
    symlink(format!("/{OLD}"), old.join("etc/ganeti/kvm-vif-bridge"))?;
    symlink("/usr/bin/snf-network-hook", old.join("etc/ganeti/hooks/instance-stop-post.d/snf-network-hook"))?;
    let made = folder.join("old.deb");
    let output = Command::new("dpkg-deb").arg("--build").args([&old, &made]).output().context("dpkg-deb")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    tree.dpkg(&["--install"], &made)?;
    ensure!(!tree.leads_to_program("etc/ganeti/kvm-vif-bridge"), "the old package's link");
    let said = tree.dpkg(&["--install"], package)?;
    ensure!(said.contains("over (0.16-2~jessie)") && !said.contains("downgrading"), "{said}");
    for link in links()?.iter().filter(|link| !link.ends_with(OWN)) {
        ensure!(tree.leads_to_program(link), "{link}, after the old package: {said}");
    }
    tree.dpkg(&["--purge"], Path::new("snf-network")).map(drop)
}
