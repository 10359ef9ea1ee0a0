//! Debian systems with systemd as PID 1: a disk image of a release, made once and kept below target/.

use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

use super::initramfs::Archive;
use super::kernel::{self, META_PACKAGE};
use crate::harness::{Skip, package};

/// What a node has: systemd, and all whose units the package has drop-ins for.
const PACKAGES: &str =
    "systemd-sysv,udev,dbus,kmod,nftables,iproute2,ifupdown,ferm,netfilter-persistent,procps,busybox-static";
/// Only since Debian 13, where every boot of it is on demand: it is large.
const NETWORK_MANAGER: (&str, &str) = ("trixie", ",network-manager");
/// What the initramfs needs to mount the disk.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// What would only take time.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
];

/// Mounts the disk and starts systemd.
const INIT: &str = "#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
until [ -b /dev/vda ]; do $b sleep 0.1; done
$b mount -t ext4 /dev/vda /disk
$b mount --move /dev /disk/dev
exec $b switch_root /disk /sbin/init
";

/// Reads scripts from the second serial port, each ended by a line, and answers with their output and exit status.
const AGENT: &str = r#"#!/bin/bash
stty raw -echo
echo @ready
while true; do
    : >/run/script
    while IFS= read -r line && [ "$line" != @run ]; do printf '%s\n' "$line" >>/run/script; done
    PATH=/usr/sbin:/usr/bin bash -x /run/script </dev/null 2>&1
    echo "@end $?"
done
"#;
const AGENT_UNIT: &str = "[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/local/sbin/agent
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=sysinit.target
";

/// What a machine is booted from.
pub struct Image {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub disk: PathBuf,
}

impl Image {
    /// The image of a suite of Debian.
    ///
    /// # Errors
    /// A `Skip` where it cannot be made: it takes root, mmdebstrap and a mirror.
    pub fn of(suite: &str) -> Result<Self> {
        let mut recipe = DefaultHasher::new();
        (suite, PACKAGES, NETWORK_MANAGER, MODULES, MASKED, INIT, AGENT, AGENT_UNIT).hash(&mut recipe);
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
        let folder = all.join(format!("{suite}-{:016x}", recipe.finish()));
        if !folder.exists() {
            let making = all.join(format!("making-{suite}-{}", process::id()));
            fs::create_dir_all(&making)?;
            let made = make(suite, &making).and_then(|()| Ok(fs::rename(&making, &folder)?));
            // Of a failure, or of a run that was slower than another.
            let _ = fs::remove_dir_all(&making);
            made.or_else(|error| if folder.exists() { Ok(()) } else { Err(error) })?;
        }
        let [kernel, initramfs, disk] = ["kernel", "initramfs", "disk"].map(|name| folder.join(name));
        Ok(Self { kernel, initramfs, disk })
    }
}

fn make(suite: &str, folder: &Path) -> Result<()> {
    if !geteuid().is_root() {
        bail!(Skip("the files of a Debian system are root's".to_owned()));
    }
    let root = folder.join("root");
    let (with, more) = NETWORK_MANAGER;
    let include = format!("--include={PACKAGES}{}", if suite == with { more } else { "" });
    let mirror = package::mirror(folder)?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=minbase", "--aptopt=Acquire::Languages \"none\"", &include]);
    mmdebstrap.args(["man", "locale", "doc"].map(|it| format!("--dpkgopt=path-exclude=/usr/share/{it}/*")));
    run(mmdebstrap.arg(suite).arg(&root).arg(mirror))?;

    let kernel = package::fetch(suite, META_PACKAGE, "linux-image-", "-unsigned")?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|it| kernel.folder.join(it).join(&kernel.version));
    let modules = modules.into_iter().find(|it| it.is_dir()).context("the kernel's modules")?;
    fs::create_dir_all(root.join("usr/lib/modules"))?;
    run(Command::new("cp").arg("-a").arg(&modules).arg(root.join("usr/lib/modules")))?;
    run(Command::new("chroot").arg(&root).args(["depmod", &kernel.version]))?;
    fs::copy(kernel.folder.join(format!("boot/vmlinuz-{}", kernel.version)), folder.join("kernel"))?;
    write_initramfs(&folder.join("initramfs"), &root, &modules)?;

    customise(&root)?;
    let disk = folder.join("disk");
    File::create(&disk)?.set_len(2 << 30)?;
    // Without checksums, which an emulator calculates slowly.
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-O", "^metadata_csum", "-d"]).args([&root, &disk]))?;
    Ok(fs::remove_dir_all(&root)?)
}

fn write_initramfs(to: &Path, root: &Path, modules: &Path) -> Result<()> {
    let mut archive = Archive::new(to)?;
    for folder in ["/dev", "/disk"] {
        archive.folder(Path::new(folder))?;
    }
    archive.file(Path::new("/init"), INIT.as_bytes())?;
    archive.file(Path::new("/bin/busybox"), &fs::read(root.join("usr/bin/busybox"))?)?;
    for (number, module) in kernel::in_order(modules, MODULES)?.iter().enumerate() {
        archive.file(Path::new(&format!("/modules/{number:03}.ko")), &kernel::content(module)?)?;
    }
    archive.end()
}

fn customise(root: &Path) -> Result<()> {
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 defaults 0 1\n")?;
    fs::write(root.join("etc/hostname"), "node1\n")?;
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    // Enabled by their packages; the scenes start them.
    for unit in ["sysinit.target.wants/ferm.service", "multi-user.target.wants/netfilter-persistent.service"] {
        fs::remove_file(units.join(unit))?;
    }
    let agent = root.join("usr/local/sbin/agent");
    fs::write(&agent, AGENT)?;
    fs::set_permissions(&agent, Permissions::from_mode(0o755))?;
    fs::write(units.join("agent.service"), AGENT_UNIT)?;
    fs::create_dir_all(units.join("sysinit.target.wants"))?;
    Ok(symlink("../agent.service", units.join("sysinit.target.wants/agent.service"))?)
}

/// Runs a command; one that is not installed is a reason to skip.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Skip(format!("{}: {error}", command.get_program().display())))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, errors.trim());
    Ok(())
}
