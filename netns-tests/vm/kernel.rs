//! Debian's kernels.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::harness::package::{self, Package};

/// What depends on the release's newest kernel for machines in clouds: small, with all we need.
pub const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the tests need of it, besides what is built in. A node has them loaded by the kernel itself, as they are first used.
const MODULES: &[&str] = &[
    // Interfaces of the tests and of Ganeti.
    "tun",
    "veth",
    "dummy",
    "bonding",
    "bridge",
    "8021q",
    "openvswitch",
    // What guards TAPs with a virtio header.
    "ifb",
    "sch_ingress",
    "cls_u32",
    "act_mirred",
    "act_csum",
    // What the program's chains are made of. Which of them are modules, and not part of another, differs.
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_meta_bridge",
    "nft_reject_bridge",
    "nft_reject_inet",
    // What the tests' own chains are made of, and those of the tools.
    "nft_compat",
    "nft_chain_nat",
    "nft_fib_inet",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_objref",
    "nft_queue",
    "nfnetlink_queue",
    "xt_NFQUEUE",
    "xt_tcpudp",
    "ip6_tables",
    "br_netfilter",
    "vrf",
    // By it strace knows which netlink a socket speaks.
    "netlink_diag",
];
/// Of a guest of the tests: its card.
pub const CARD: &[&str] = &["virtio_pci", "virtio_net", "af_packet"];

/// A kernel that users run.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// The beginning of its version.
    pub name: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
}

/// The oldest that is supported, and those of Debian's releases and backports since.
pub const SERIES: [Series; 3] = [
    Series { name: "5.10", suite: "bullseye" },
    Series { name: "6.1", suite: "bookworm" },
    Series { name: "6.12", suite: "bookworm-backports" },
];

/// An unpacked kernel.
pub struct Kernel {
    /// Its whole version.
    pub version: String,
    /// Its bootable image.
    pub image: PathBuf,
    /// The modules it needs, in the order in which they can be loaded.
    pub modules: Vec<PathBuf>,
}

/// How one of the package's functions is asked for it.
type Fetch = fn(&str, &str, &str, &str) -> Result<Package>;

impl Series {
    /// Its package, with the modules for tests in it.
    ///
    /// # Errors
    /// A `Skip` if there is none to be had here.
    pub fn fetch(&self) -> Result<Kernel> {
        self.fetch_by(package::fetch, MODULES)
    }

    /// The same for a guest of a test, which is in our namespaces.
    pub fn fetch_for_guest(&self) -> Result<Kernel> {
        self.fetch_by(package::fetch_outside, CARD)
    }

    fn fetch_by(&self, fetch: Fetch, modules: &[&str]) -> Result<Kernel> {
        let Package { folder, version } = fetch(self.suite, META_PACKAGE, "linux-image-", "-unsigned")?;
        let is_it = version.strip_prefix(self.name).is_some_and(|rest| rest.starts_with('.'));
        ensure!(is_it, "{} has Linux {version}, not {}", self.suite, self.name);
        let modules = in_order(&folder.join("lib/modules").join(&version), modules)?;
        Ok(Kernel { image: folder.join(format!("boot/vmlinuz-{version}")), modules, version })
    }
}

/// The modules and what they depend on, dependencies first.
pub fn in_order(folder: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = HashMap::new();
    find(&folder.join("kernel"), &mut files)?;
    let mut ordered = Vec::new();
    for module in wanted {
        add(module, &files, &mut ordered)?;
    }
    Ok(ordered)
}

/// The modules below a folder, by name.
fn find(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((module, "ko" | "ko.xz")) = path.file_name().and_then(|it| it.to_str()?.split_once('.')) {
            files.insert(module.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(module: &str, files: &HashMap<String, PathBuf>, ordered: &mut Vec<PathBuf>) -> Result<()> {
    // What has no file is built in.
    let Some(file) = files.get(module).filter(|file| !ordered.contains(file)) else { return Ok(()) };
    for dependency in dependencies(&content(file)?) {
        add(&dependency.replace('-', "_"), files, ordered)?;
    }
    ordered.push(file.clone());
    Ok(())
}

/// A module as the kernel loads it.
pub fn content(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|it| it != "xz") {
        return fs::read(file).with_context(|| file.display().to_string());
    }
    let output = Command::new("xz").arg("-dc").arg(file).output().context("xz")?;
    ensure!(output.status.success(), "xz -dc {}: {}", file.display(), output.status);
    Ok(output.stdout)
}

/// What a module says that it depends on (`depends=stp,llc` in its section .modinfo; the package has no modules.dep).
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
