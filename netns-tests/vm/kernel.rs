//! Debian's kernel.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::harness::package::{self, Package};

/// What depends on the release's newest kernel for machines in clouds: small, with all we need.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the tests need of it, besides what is built in.
const MODULES: [&str; 9] =
    ["tun", "veth", "dummy", "bonding", "bridge", "8021q", "nf_tables", "nft_meta_bridge", "openvswitch"];

/// An unpacked kernel.
pub struct Kernel {
    /// Its bootable image.
    pub image: PathBuf,
    /// The modules it needs, in the order in which they can be loaded.
    pub modules: Vec<PathBuf>,
}

/// Its package.
///
/// # Errors
/// A `Skip` if there is none to be had here.
pub fn fetch() -> Result<Kernel> {
    let Package { folder, version } = package::fetch(META_PACKAGE, "linux-image-", "-unsigned")?;
    let modules = folder.join("lib/modules").join(&version);
    Ok(Kernel { image: folder.join(format!("boot/vmlinuz-{version}")), modules: in_order(&modules)? })
}

/// The modules and what they depend on, dependencies first.
fn in_order(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = HashMap::new();
    find(&folder.join("kernel"), &mut files)?;
    let mut ordered = Vec::new();
    for module in MODULES {
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
