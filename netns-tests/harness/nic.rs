//! Runs the program as Ganeti does: with a NIC in its environment.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::build::executable;
use super::guest::{Identity, WEB1};
use super::netns::Netns;
use super::setting;
use super::topology::{Files, GATEWAY, GATEWAY6, Node};

/// A NIC as Ganeti's variables have it.
pub struct Nic<'a> {
    node: &'a Node,
    tap: String,
    variables: BTreeMap<String, String>,
}

impl<'a> Nic<'a> {
    /// A NIC in the ip-less-routed network.
    pub fn routed(node: &'a Node, tap: &str, id: Identity) -> Self {
        let n = if id.mac == WEB1.mac { 1 } else { 2 };
        let plain = Self { node, tap: tap.to_owned(), variables: BTreeMap::new() };
        plain
            .set("INSTANCE", id.name)
            .set("MAC", id.mac)
            .set("MODE", "routed")
            .set("LINK", "100")
            .set("IP", id.ip)
            .set("TAGS", "")
            .set("INTERFACE", tap)
            .set("INTERFACE_INDEX", "0")
            .set("INTERFACE_UUID", format!("0c2a1a4e-0000-4000-8000-00000000000{n}"))
            .set("NETWORK_NAME", "public")
            .set("NETWORK_UUID", "5c2f4a5a-0000-4000-8000-000000000001")
            .set("NETWORK_TAGS", "ip-less-routed")
            .set("NETWORK_SUBNET", "10.0.0.0/24")
            .set("NETWORK_GATEWAY", GATEWAY)
            .set("NETWORK_SUBNET6", "2001:db8:1::/64")
            .set("NETWORK_GATEWAY6", GATEWAY6)
    }

    /// With a variable changed.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// Without some variables.
    pub fn unset(mut self, names: &[&str]) -> Self {
        self.variables.retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// Without IPv6.
    pub fn only_v4(self) -> Self {
        self.unset(&["NETWORK_SUBNET6", "NETWORK_GATEWAY6"])
    }

    /// Without IPv4.
    pub fn only_v6(self) -> Self {
        self.unset(&["IP", "NETWORK_SUBNET", "NETWORK_GATEWAY"])
    }

    /// In no network, as Ganeti's own script gets it.
    pub fn without_network(mut self) -> Self {
        self.variables.retain(|name, _| !name.starts_with("NETWORK_"));
        self
    }

    /// In bridged mode.
    pub fn bridged(self, bridge: &str) -> Self {
        self.set("MODE", "bridged").set("LINK", bridge).set("BRIDGE", bridge)
    }

    /// All of them.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// As the file that Ganeti writes for Xen's hotplug (_WriteNICInfoFile of its hv_xen.py).
    pub fn xen_file(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.variables {
            text += &match name.as_str() {
                "INSTANCE" | "INTERFACE" | "BRIDGE" => continue,
                "TAGS" => format!("TAGS=\"{}\"\n", value.replace(' ', "\\ ")),
                _ if name.starts_with("NETWORK_") => format!("{name}=\"{value}\"\n"),
                _ => format!("{name}={value}\n"),
            };
        }
        text
    }

    /// `ifup TAP`.
    pub fn ifup(&self) -> Result<Outcome> {
        self.run("ifup")
    }

    /// `ifdown TAP`.
    pub fn ifdown(&self) -> Result<Outcome> {
        self.run("ifdown")
    }

    /// `ifdown TAP` with more arguments.
    pub fn down_with(&self, arguments: &[&str]) -> Result<Outcome> {
        self.finish(Command::new(executable()).args(["ifdown", &self.tap]).args(arguments))
    }

    /// Another verb, or another name of the program.
    pub fn run(&self, verb: &str) -> Result<Outcome> {
        self.run_under(&[], verb)
    }

    /// A verb, run by another command such as strace.
    pub fn run_under(&self, wrapper: &[&str], verb: &str) -> Result<Outcome> {
        let mut command = match wrapper {
            [] => Command::new(executable()),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(executable());
                command
            }
        };
        self.finish(command.args([verb, &self.tap]))
    }

    /// A verb, to be run.
    pub fn command(&self, verb: &str) -> Command {
        self.command_of(executable(), verb)
    }

    /// A verb of another build of the program, to be run.
    pub fn command_of(&self, program: impl AsRef<OsStr>, verb: &str) -> Command {
        let mut command = Command::new(program);
        self.node.files.environment(command.args([verb, &self.tap])).envs(&self.variables);
        command
    }

    /// Starts a verb, without waiting for its end.
    pub fn start(&self, verb: &str) -> Result<Running> {
        Running::start(&self.node.netns, &mut self.command(verb))
    }

    /// Runs a command with this NIC in its environment, and nothing else there.
    pub fn finish(&self, command: &mut Command) -> Result<Outcome> {
        self.node.files.environment(command).envs(&self.variables);
        Outcome::of(&self.node.netns, command)
    }
}

impl Files {
    /// What surrounds the program: Ganeti's working folder and environment, and our settings; and what a sanitised one is told.
    pub fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        setting::restrict(command);
        let sanitiser = std::env::vars_os().filter(|(key, _)| key == "ASAN_OPTIONS");
        command
            .env_clear()
            .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
            .env("LC_ALL", "C")
            .env("SNF_NETWORK_DEFAULTS", self.settings())
            .envs(sanitiser)
            .current_dir("/")
    }

    /// Runs the program with words and with options separated by spaces, and no NIC.
    pub fn run(&self, netns: &Netns, words: &[&str], options: &str) -> Result<Outcome> {
        let mut command = Command::new(executable());
        self.environment(command.args(words).args(options.split_whitespace()));
        Outcome::of(netns, &mut command)
    }

    /// The same, without waiting for its end.
    pub fn start(&self, netns: &Netns, words: &[&str], options: &str) -> Result<Running> {
        let mut command = Command::new(executable());
        self.environment(command.args(words).args(options.split_whitespace()));
        Running::start(netns, &mut command)
    }

    /// Runs the program with words, and with variables in its environment.
    pub fn run_with(&self, netns: &Netns, words: &[&str], variables: &[(&str, &str)]) -> Result<Outcome> {
        self.run_command(netns, Command::new(executable()).args(words), variables)
    }

    /// Runs another command, such as a link to the program, with variables in its environment.
    pub fn run_command(&self, netns: &Netns, command: &mut Command, variables: &[(&str, &str)]) -> Result<Outcome> {
        self.environment(command).envs(variables.iter().copied());
        Outcome::of(netns, command)
    }
}

/// A run under way.
pub struct Running {
    command: String,
    child: Child,
}

impl Running {
    fn start(netns: &Netns, command: &mut Command) -> Result<Self> {
        Self::spawned(command, |command| netns.run(|| command.spawn()))
    }

    fn spawned(command: &mut Command, spawn: impl FnOnce(&mut Command) -> io::Result<Child>) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let words = words(command);
        let child = spawn(command).with_context(|| words.clone())?;
        Ok(Self { command: words, child })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended, and nobody holds its output any more, as Ganeti's node daemon does.
    pub fn finish(self) -> Result<Outcome> {
        let output = self.child.wait_with_output()?;
        Ok(Outcome {
            command: self.command,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The program's name and its arguments, for messages.
pub(super) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let words: Vec<_> =
        [program.as_os_str()].into_iter().chain(command.get_args()).map(|w| w.to_string_lossy()).collect();
    words.join(" ")
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    #[expect(dead_code, reason = "read by Debug, for messages")]
    pub(super) command: String,
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end, and until nobody holds its output any more.
    fn of(netns: &Netns, command: &mut Command) -> Result<Self> {
        Running::start(netns, command)?.finish()
    }

    /// As `of`, of a command that `spawn` starts where it belongs.
    pub fn spawned(command: &mut Command, spawn: impl FnOnce(&mut Command) -> io::Result<Child>) -> Result<Self> {
        Running::spawned(command, spawn)?.finish()
    }

    /// That it exited with 0.
    pub fn succeeds(self) -> Result<Self> {
        ensure!(self.code == Some(0), "expected exit 0: {self:#?}");
        Ok(self)
    }

    /// That it exited with 1 and one line on standard error, which holds all `parts`.
    pub fn fails(self, parts: &[&str]) -> Result<Self> {
        ensure!(self.code == Some(1), "expected exit 1: {self:#?}");
        let lines = self.stderr.lines().count();
        ensure!(lines == 1, "expected one line on standard error: {self:#?}");
        for part in parts {
            ensure!(self.stderr.contains(part), "expected {part:?} on standard error: {self:#?}");
        }
        Ok(self)
    }
}
