//! Debian's kernel: its package, from the sources that this machine has, unpacked and kept below target/.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context as _, Result, ensure};

use crate::harness::Skip;

/// What depends on the release's newest kernel for machines in clouds: small, with all we need.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the tests need of it, besides what is built in.
const MODULES: [&str; 8] = ["tun", "veth", "dummy", "bonding", "bridge", "8021q", "nf_tables", "openvswitch"];

/// An unpacked kernel.
pub struct Kernel {
    /// Its bootable image.
    pub image: PathBuf,
    /// The modules it needs, in the order in which they can be loaded.
    pub modules: Vec<PathBuf>,
}

/// Fetches the package once; later runs take the unpacked one.
///
/// # Errors
/// A `Skip` if there is none to be had here.
pub fn fetch(folder: &Path) -> Result<Kernel> {
    let depends = output(folder, "apt-cache", &["depends", META_PACKAGE])?;
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let release = newest.with_context(|| format!("{META_PACKAGE} depends on no kernel: {depends:?}")).map_err(skip)?;
    let unpacked = folder.join(release);
    if !unpacked.exists() {
        let package = format!("linux-image-{release}-unsigned");
        let making = folder.join(format!("{release}-{}", process::id()));
        fs::create_dir_all(&making)?;
        let made = unpack(&making, &package).and_then(|()| Ok(fs::rename(&making, &unpacked)?));
        if made.is_err() {
            // The error counts.
            let _ = fs::remove_dir_all(&making);
        }
        // Another run may have been faster.
        made.or_else(|error| if unpacked.exists() { Ok(()) } else { Err(error) })?;
    }
    let modules = unpacked.join("lib/modules").join(release);
    Ok(Kernel { image: unpacked.join(format!("boot/vmlinuz-{release}")), modules: in_order(&modules)? })
}

fn unpack(folder: &Path, package: &str) -> Result<()> {
    output(folder, "apt-get", &["-qq", "download", package])?;
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let file = entries.iter().map(|it| it.path()).find(|it| it.extension().is_some_and(|it| it == "deb"));
    let file = file.with_context(|| format!("apt-get download {package} left no file"))?;
    output(folder, "dpkg-deb", &["-x", &file.to_string_lossy(), "."])?;
    Ok(fs::remove_file(file)?)
}

/// Runs a command to its end; what cannot be run, or fails, is a reason to skip.
fn output(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let run = || -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C").output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    };
    run().with_context(|| format!("{program} {}", arguments.join(" "))).map_err(skip)
}

fn skip(error: anyhow::Error) -> anyhow::Error {
    Skip(format!("no kernel of Debian's: {error:#}")).into()
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
