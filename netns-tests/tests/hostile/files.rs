//! Files that others may write to: the log's folder, settings, the administrator's script.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use super::{chmod, clear, plugged, refused, run};
use crate::harness::guest::WEB1;
use crate::harness::topology::OUTSIDE;

pub(super) fn a_log_in_a_folder_of_others() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let (folder, victim) = (node.files.folder.join("theirs"), node.files.folder.join("victim"));
    let log = folder.join("log");
    fs::create_dir(&folder)?;
    fs::write(&victim, "")?;
    symlink(&victim, &log)?;
    node.files.set(&format!("LOGFILE={}", log.display()))?;
    let written = || -> Result<bool> {
        run(&nic, "ifup")?.succeeds()?;
        run(&nic, "ifdown")?.succeeds()?;
        let written = fs::metadata(&victim)?.len() > 0;
        fs::write(&victim, "")?;
        Ok(written)
    };
    // Whoever can write there could have moved root's link to this name.
    for mode in [0o777, 0o1777, 0o775] {
        chmod(&folder, mode)?;
        ensure!(!written()?, "a link in a folder of mode {mode:o} was followed");
    }
    chmod(&folder, 0o755)?;
    ensure!(written()?, "root's own link was not followed");
    clear(&log)?;
    fs::hard_link(&victim, &log)?;
    ensure!(!written()?, "a hard link was written to");
    node.files.run(&node.netns, &["log", "x"], "")?.succeeds()?;
    clear(&log)?;
    run(&nic, "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    ensure!(fs::read_to_string(&log)?.contains("ifup tap0"), "nothing is logged into a file there");
    run(&nic, "ifdown")?.succeeds().map(drop)
}

/// It is like a full disk.
pub(super) fn a_log_of_the_greatest_size() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    fs::write(node.files.log(), vec![b'#'; 1 << 20])?;
    let (script, seen) = (node.files.folder.join("extra"), node.files.folder.join("seen"));
    fs::write(&script, format!("#!/bin/sh\ncat /proc/self/status > {}\n", seen.display()))?;
    chmod(&script, 0o755)?;
    node.files.set(&format!("IFUP_EXTRA_SCRIPT={}", script.display()))?;
    let nic = node.nic("tap0", WEB1);
    nic.run_under(&["prlimit", "--fsize=524288"], "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    ensure!(fs::metadata(node.files.log())?.len() == 1 << 20, "the limit does not limit");
    // Another program in our place gets the signal as ever.
    let status = fs::read_to_string(&seen)?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap_or_default();
    ensure!(u64::from_str_radix(ignored, 16)? & (1 << 24) == 0, "SIGXFSZ is ignored: {status}");
    nic.run_under(&["prlimit", "--fsize=524288"], "ifdown")?.succeeds().map(drop)
}

pub(super) fn settings_and_a_script_of_others() -> Result<()> {
    let (site, guest) = plugged()?;
    let node = &site.node;
    let nic = || node.nic("tap0", WEB1);
    let settings = node.files.settings();
    let script = node.files.folder.join("extra");
    fs::write(&script, "#!/bin/sh\n")?;
    chmod(&script, 0o700)?;
    node.files.set(&format!("IFUP_EXTRA_SCRIPT={}", script.display()))?;
    run(&nic(), "ifup")?.succeeds()?;
    run(&nic(), "ifdown")?.succeeds()?;
    for (file, names, mode) in [(&settings, "SNF_NETWORK_DEFAULTS", 0o600), (&script, "IFUP_EXTRA_SCRIPT", 0o700)] {
        chmod(file, mode | 0o002)?;
        refused(node, &nic(), &["ifup tap0: ", names, "everybody can write it"])?;
        chmod(file, mode)?;
    }
    run(&nic(), "ifup")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    run(&nic(), "ifdown")?.succeeds().map(drop)
}
