//! A real Open vSwitch: ovsdb-server and ovs-vswitchd in a node's namespace, with sockets, database and logs of their own; and
//! servers that are none.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::netns::Netns;
use super::topology::Node;
use super::{Skip, until};

/// The schema that Debian's openvswitch-switch brings.
pub const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Where Debian has the daemons and tools.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/bin", "/bin"];

/// Which datapath its bridges have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// ovs-vswitchd's own: packet sockets.
    Userspace,
    /// The kernel's module.
    Kernel,
}

/// A running Open vSwitch.
pub struct Switch {
    netns: Netns,
    folder: PathBuf,
    datapath: Datapath,
    database: Option<Child>,
    daemon: Option<Child>,
}

impl Switch {
    /// Starts one in the node's namespace, and tells the program under test where it is.
    pub fn on(node: &Node, datapath: Datapath) -> Result<Self> {
        let folder = folder("ovs")?;
        let mut switch = Self { netns: node.netns.again()?, folder, datapath, database: None, daemon: None };
        let file = switch.folder.join("conf.db");
        let mut create = switch.command("ovsdb-tool")?;
        node.netns.output(create.arg("create").arg(&file).arg(SCHEMA))?;
        let mut server = switch.command("ovsdb-server")?;
        server.arg(file).arg(format!("--remote=punix:{}", switch.socket().display()));
        switch.database = Some(switch.spawn(server, "ovsdb-server")?);
        until("ovsdb-server to listen", || Ok(UnixStream::connect(switch.socket()).is_ok()))?;
        switch.vsctl("--no-wait init")?;
        switch.start()?;
        node.files.set(&format!("OVSDB_SOCKET={}", switch.socket().display()))?;
        Ok(switch)
    }

    /// Where its ovsdb-server listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("db.sock")
    }

    /// Starts ovs-vswitchd.
    pub fn start(&mut self) -> Result<()> {
        let mut daemon = self.command("ovs-vswitchd")?;
        daemon.arg(format!("unix:{}", self.socket().display()));
        if self.datapath == Datapath::Userspace {
            daemon.arg("--disable-system");
        } else {
            // Within ten seconds of the machine's start it finds no processor to serve (seen with 3.1), and all frames are lost.
            until("the machine to be up for a while", || {
                let uptime = fs::read_to_string("/proc/uptime")?;
                Ok(uptime.split('.').next().and_then(|it| it.parse().ok()).is_some_and(|seconds: u64| seconds > 10))
            })?;
        }
        self.daemon = Some(self.spawn(daemon, "ovs-vswitchd")?);
        Ok(())
    }

    /// Kills ovs-vswitchd.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        daemon.kill()?;
        daemon.wait().map(drop).context("ovs-vswitchd")
    }

    /// Kills ovsdb-server.
    pub fn kill_database(&mut self) -> Result<()> {
        let Some(mut database) = self.database.take() else { return Ok(()) };
        database.kill()?;
        database.wait().map(drop).context("ovsdb-server")
    }

    /// Adds a bridge.
    pub fn bridge(&self, name: &str) -> Result<()> {
        let kind = if self.datapath == Datapath::Userspace { "netdev" } else { "system" };
        self.vsctl(&format!("add-br {name} -- set Bridge {name} datapath_type={kind}")).map(drop)
    }

    /// `ovs-vsctl` with words separated by spaces; what it prints, without the last line end.
    pub fn vsctl(&self, words: &str) -> Result<String> {
        let mut command = self.command("ovs-vsctl")?;
        command.arg(format!("--db=unix:{}", self.socket().display())).arg("--timeout=20");
        Ok(self.netns.output(command.args(words.split_whitespace()))?.trim_end().to_owned())
    }

    /// Columns of the port of this name and of its interface, but for those that differ from one port to the next.
    pub fn rows(&self, name: &str) -> Result<Vec<Value>> {
        ["Port", "Interface"]
            .into_iter()
            .map(|table| {
                let columns = match table {
                    "Port" => "name,tag,trunks,vlan_mode,external_ids,other_config",
                    _ => "name,type,external_ids,options,other_config,mtu,error",
                };
                let found = format!("--format=json --columns={columns} find {table} name={name}");
                Ok(serde_json::from_str::<Value>(&self.vsctl(&found)?)?["data"].take())
            })
            .collect()
    }

    /// How many changes ovs-vswitchd has been asked to carry out.
    pub fn changes(&self) -> Result<u64> {
        self.vsctl("get Open_vSwitch . next_cfg")?.parse().context("next_cfg")
    }

    /// Lets the datapath forget what it has learned from frames: it must ask ovs-vswitchd again for each kind of them, in turn.
    pub fn forget_flows(&self) -> Result<()> {
        let mut command = self.command("ovs-appctl")?;
        command.arg("-t").arg(self.folder.join("ovs-vswitchd.ctl")).arg("dpctl/del-flows");
        self.netns.output(&mut command).map(drop)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let place = PLACES.iter().map(|folder| Path::new(folder).join(program)).find(|place| place.exists());
        let place = place.with_context(|| Skip(format!("there is no {program} (Debian's openvswitch-switch)")))?;
        let mut command = Command::new(place);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.folder);
        }
        Ok(command)
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Child> {
        let log = File::create(self.folder.join(format!("{name}.out")))?;
        command.arg(format!("--unixctl={}", self.folder.join(format!("{name}.ctl")).display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.netns.run(|| command.spawn()).with_context(|| name.to_owned())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for child in [self.daemon.take(), self.database.take()].into_iter().flatten() {
            ended(child);
        }
        // A folder left behind in /tmp harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ended(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// A folder of a test's own. A socket's path has 107 bytes, so it cannot be below target/.
fn folder(kind: &str) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("snf-network-{kind}-{}-{number}", process::id()));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// A server that is none of OVSDB's: it says these bytes to whoever has asked something, and then nothing more.
pub struct Impostor {
    folder: PathBuf,
}

impl Impostor {
    /// Starts it; it ends with the process.
    pub fn new(says: &'static [u8]) -> Result<Self> {
        let impostor = Self { folder: folder("impostor")? };
        let listener = UnixListener::bind(impostor.socket())?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut asked = [0; 4096];
                    while stream.read(&mut asked).is_ok_and(|length| length > 0) {
                        // Whoever went away needs nothing.
                        let _ = stream.write_all(says);
                    }
                });
            }
        });
        Ok(impostor)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("db.sock")
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // A folder left behind in /tmp harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
