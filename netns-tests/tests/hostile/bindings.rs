//! nfdhcpd's folder, which may be that of a user who means ill.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{chmod, clear, fifo, plugged, refused, run};
use crate::harness::build::executable;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::topology::OUTSIDE;

/// What has a binding's name is a trap, or the folder beside is.
pub(super) fn traps() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    let (folder, victim) = (node.files.bindings(), node.files.folder.join("victim"));
    let (binding, beside) = (folder.join("tap0"), node.files.folder.join("nfdhcpd.snf-network"));
    fs::write(&victim, "mine")?;
    for trap in [&|| Ok(symlink(&victim, &binding)?) as Result<()>, &|| fifo(&binding)] as [&dyn Fn() -> Result<()>; 2]
    {
        trap()?;
        run(&nic, "ifup")?.succeeds()?;
        guest.ping(OUTSIDE)?;
        ensure!(fs::symlink_metadata(&binding)?.is_file(), "{binding:?} is still a trap");
        run(&nic, "ifdown")?.succeeds()?;
        trap()?;
        // Nothing is recorded, so nothing is touched.
        run(&nic, "ifdown")?.succeeds()?;
        clear(&binding)?;
    }
    // The folder beside is ours alone.
    clear(&beside)?;
    fs::create_dir(node.files.folder.join("elsewhere"))?;
    fs::create_dir(&beside)?;
    chmod(&beside, 0o777)?;
    refused(node, &nic, &["ifup tap0", "nfdhcpd.snf-network", "everybody can write it"])?;
    clear(&beside)?;
    fifo(&beside)?;
    refused(node, &nic, &["ifup tap0", "nfdhcpd.snf-network", "Not a directory"])?;
    clear(&beside)?;
    // nfdhcpd's folder may be anybody's.
    chmod(&folder, 0o777)?;
    run(&nic, "ifup")?.succeeds()?;
    ensure!(fs::read_to_string(&victim)? == "mine", "a link was followed");
    run(&nic, "ifdown")?.succeeds().map(drop)
}

pub(super) fn a_fifo_in_place_of_a_folder_or_a_binding() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    let (folder, moved) = (node.files.bindings(), node.files.folder.join("moved"));
    // What all NICs share stays.
    run(&nic, "ifup")?.succeeds()?;
    run(&nic, "ifdown")?.succeeds()?;
    fs::rename(&folder, &moved)?;
    fifo(&folder)?;
    refused(node, &nic, &["ifup tap0", "nfdhcpd", "Not a directory"])?;
    // A link of root's leads to it.
    clear(&folder)?;
    symlink(&moved, &folder)?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    let binding = moved.join("tap0");
    ensure!(fs::symlink_metadata(&binding)?.is_file(), "no {binding:?}");
    // Who only looks does not wait for a writer either.
    clear(&binding)?;
    fifo(&binding)?;
    let program = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60", executable()]).args(words);
        node.files.run_command(&node.netns, &mut command, &[])
    };
    let status = program(&["status"])?;
    ensure!(status.code == Some(3) && status.stdout.contains("binding"), "{status:?}");
    program(&["reconcile"])?.succeeds()?;
    ensure!(fs::symlink_metadata(&binding)?.is_file(), "{binding:?} is still a trap");
    run(&nic, "ifdown")?.succeeds().map(drop)
}

/// A mount of a fresh file system, for as long as this value lives.
struct Mount(PathBuf);

impl Mount {
    fn on(place: &Path) -> Result<Self> {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("tmpfs")?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It goes with the mount namespace, at the latest.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The names in a folder that are moved out of the way.
fn moved(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|path| path.to_string_lossy().contains("/.tap0.snf-network-moved-")).collect())
}

pub(super) fn a_folder_in_place_of_a_binding() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    let (binding, beside) = (node.files.bindings().join("tap0"), node.files.folder.join("nfdhcpd.snf-network"));
    let trap = || -> Result<()> {
        fs::create_dir(&binding)?;
        Ok(fs::write(binding.join("file"), "theirs")?)
    };
    trap()?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    ensure!(fs::symlink_metadata(&binding)?.is_file(), "no {binding:?}");
    fs::remove_file(&binding)?;
    trap()?;
    let mut status = Command::new(executable());
    let status = node.files.run_command(&node.netns, status.arg("status"), &[])?;
    ensure!(status.code == Some(3) && status.stdout.contains("binding"), "{status:?}");
    run(&nic, "ifdown")?.succeeds()?;
    ensure!(!binding.exists(), "{binding:?} is still there");
    // They are kept, with what is in them.
    let kept = moved(&beside)?;
    ensure!(kept.len() == 2, "{kept:?}");
    ensure!(kept.iter().all(|it| fs::read_to_string(it.join("file")).is_ok_and(|text| text == "theirs")), "{kept:?}");
    // An empty one is nothing to be kept.
    fs::create_dir(&binding)?;
    run(&nic, "ifup")?.succeeds()?;
    ensure!(moved(&beside)?.len() == 2, "{:?}", moved(&beside)?);
    run(&nic, "ifdown")?.succeeds().map(drop)
}

/// Not even root can remove what is a mount.
pub(super) fn a_binding_that_stays_refuses_no_other_nic() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    let binding = node.files.bindings().join("tap0");
    run(&nic, "ifup")?.succeeds()?;
    fs::remove_file(&binding)?;
    fs::create_dir(&binding)?;
    let mount = Mount::on(&binding)?;
    run(&nic, "ifdown")?.fails(&["ifdown tap0", "nfdhcpd/tap0", "busy"])?;
    // The next one on this TAP has no binding.
    let next = node.nic("tap0", WEB2);
    run(&next, "ifup")?.succeeds()?;
    drop(guest);
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains("warning: left over") && log.contains("nfdhcpd/tap0"), "{log}");
    drop(mount);
    Ok(())
}

/// From there nothing can be renamed into it.
pub(super) fn on_a_file_system_of_their_own() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let folder = node.files.bindings();
    let _mount = Mount::on(&folder)?;
    let nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    let binding = folder.join("tap0");
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    let names = || -> Result<Vec<_>> { fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name())).collect() };
    ensure!(names()? == ["tap0"], "{:?}", names()?);
    run(&nic, "ifdown")?.succeeds()?;
    ensure!(names()?.is_empty(), "{:?}", names()?);
    for name in ["tap0", ".tap0.snf-network-making"] {
        fs::create_dir(folder.join(name))?;
        fs::write(folder.join(name).join("file"), "theirs")?;
    }
    run(&nic, "ifup")?.succeeds()?;
    ensure!(fs::symlink_metadata(&binding)?.is_file() && names()?.len() == 3, "{:?}", names()?);
    run(&nic, "ifdown")?.succeeds().map(drop)
}
