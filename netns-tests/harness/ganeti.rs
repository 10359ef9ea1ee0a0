//! Ganeti's own code, of Debian's package: its Python, and the scripts that it runs.
//!
//! What the node has of Ganeti is mounted in a mount namespace of its own: /usr/lib/ganeti, /etc/ganeti, /etc/xen/scripts, our
//! settings below /etc/default, and /run. Nothing of the machine that runs the tests is touched.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::Skip;
use super::build::executable;
use super::nic::{Nic, Outcome};
use super::package;
use super::topology::Node;

/// Debian's, which has the modules that Ganeti needs.
const PYTHON: &str = "/usr/bin/python3";
/// Where Ganeti has its scripts, whatever its version.
const SCRIPTS: &str = "/usr/lib/ganeti";

/// Ganeti on a node.
pub struct Ganeti<'a> {
    node: &'a Node,
    /// Where its Python modules are.
    modules: PathBuf,
    mounts: File,
}

impl<'a> Ganeti<'a> {
    /// Ganeti 3.0 or 3.1, with links to the program as README has them.
    ///
    /// # Errors
    /// A `Skip` if this machine has no such package, or not what it needs.
    pub fn on(node: &'a Node) -> Result<Self> {
        let package = package::fetch_outside("", "ganeti", "ganeti-3.", "")?;
        let version = format!("3.{}", package.version);
        let modules = package.folder.join("usr/share/ganeti").join(&version);
        let scripts = package.folder.join("usr/lib/ganeti").join(&version).join("usr/lib/ganeti");
        let folder = node.files.folder.join("ganeti");
        let own = |path: &str| -> Result<PathBuf> {
            let path = folder.join(path);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        let (etc, default, xen) = (own("etc/ganeti")?, own("etc/default")?, own("etc/xen/scripts")?);
        own("lib/ganeti")?;
        // As node up has been told, but where the program looks by itself.
        fs::copy(node.files.settings(), default.join("snf-network"))?;
        let stop = own("etc/ganeti/hooks/instance-stop-post.d")?.join("snf-network-hook");
        let names = ["kvm-vif-bridge", "kvm-ifup-custom", "kvm-ifdown-custom"];
        for link in names.iter().map(|name| etc.join(name)).chain([stop, xen.join("vif-custom")]) {
            symlink(executable(), &link).with_context(|| link.display().to_string())?;
        }
        symlink(Path::new(SCRIPTS).join("vif-ganeti"), xen.join("vif-ganeti"))?;
        let mounts = thread::spawn(move || mounts(&folder, &scripts)).join();
        let mounts = mounts.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Self { node, modules, mounts })
    }

    /// Lets Ganeti's node daemon set a NIC up for KVM, as it starts an instance.
    pub fn configure(&self, nic: &Nic) -> Result<Outcome> {
        self.python(nic, &["kvm"])
    }

    /// Lets it run another command than its kvm-ifup, with the TAP as its argument.
    pub fn call(&self, nic: &Nic, command: &str) -> Result<Outcome> {
        self.python(nic, &["call", command])
    }

    /// Lets it write the file for Xen's hotplug.
    pub fn describe_for_xen(&self, nic: &Nic) -> Result<Outcome> {
        self.python(nic, &["xen"])
    }

    /// Lets it run the hooks of a stopped instance.
    pub fn stopped(&self, nic: &Nic) -> Result<Outcome> {
        self.python(nic, &["stop"])
    }

    /// Runs vif-ganeti as Xen's hotplug does.
    pub fn vif_ganeti(&self, arguments: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
        let mut command = Command::new("/etc/xen/scripts/vif-ganeti");
        self.run(command.args(arguments.split_whitespace()), variables)
    }

    fn python(&self, nic: &Nic, what: &[&str]) -> Result<Outcome> {
        let told = serde_json::to_string(&nic.variables())?;
        let mut command = Command::new(PYTHON);
        command.args(["-c", include_str!("ganeti.py"), what[0], &told]).args(&what[1..]);
        let modules = self.modules.to_string_lossy();
        let outcome = self.run(&mut command, &[("PYTHONPATH", &*modules)])?;
        if outcome.stderr.contains("ModuleNotFoundError") {
            return Err(Skip(format!("Ganeti lacks a module: {}", outcome.stderr)).into());
        }
        Ok(outcome)
    }

    /// With the environment of Ganeti's node daemon, where Ganeti's files are.
    fn run(&self, command: &mut Command, variables: &[(&str, &str)]) -> Result<Outcome> {
        self.node.files.environment(command).env_remove("SNF_NETWORK_DEFAULTS").envs(variables.iter().copied());
        Outcome::spawned(command, |command| {
            self.node.netns.run(|| {
                // Only a thread that shares no working folder can enter another mount namespace.
                unshare(CloneFlags::CLONE_FS)?;
                setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
                command.spawn()
            })
        })
    }
}

/// Moves the thread into a mount namespace with all of it, and gives the namespace.
fn mounts(folder: &Path, scripts: &Path) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount")?;
    let none = None::<&str>;
    // Folders that the machine itself may not have.
    for (own, place) in [("etc", "/etc"), ("lib", "/usr/lib")] {
        let layers = format!("lowerdir={}:{place}", folder.join(own).display());
        let mounted = mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(layers.as_str()));
        mounted.map_err(|errno| Skip(format!("no overlay on {place}: {errno}")))?;
    }
    // And nothing of a Ganeti that it may have.
    for (source, place) in [(scripts, SCRIPTS), (&folder.join("etc/ganeti"), "/etc/ganeti")] {
        mount(Some(source), place, none, MsFlags::MS_BIND, none).with_context(|| place)?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount /run")?;
    fs::create_dir("/run/ganeti")?;
    File::open("/proc/thread-self/ns/mnt").context("/proc/thread-self/ns/mnt")
}
