//! Machines that run a Debian system. A process outside our namespaces makes the image and starts QEMU; the test speaks to the
//! machine by a socket, its second serial port.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::debian::Image;
use crate::harness::{Skip, until};

/// The argument that makes this binary the process outside.
pub const SYSTEMS: &str = "--boot-systems";
/// How long a machine may say nothing, while it boots too.
const SILENCE: Duration = Duration::from_secs(900);

/// Starts the process outside. Call this before entering any namespace.
pub fn start_outside() -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    let child = command.arg(SYSTEMS).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    *OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner) = Some(child.context("the process that boots systems")?);
    Ok(())
}

/// It ends when ours does, as its standard input does, and its machines with it.
static OUTSIDE: Mutex<Option<Child>> = Mutex::new(None);

/// Boots a machine for each line of standard input: the suite, and the file that becomes its second disk.
pub fn when_asked() -> ExitCode {
    let folder = env::temp_dir().join(format!("snf-network-systems-{}", process::id()));
    let mut machines = Vec::new();
    for line in io::stdin().lines().map_while(Result::ok) {
        let [suite, payload]: [String; 2] = serde_json::from_str(&line).unwrap_or_default();
        let place = folder.join(&suite);
        let answer = match start(&suite, Path::new(&payload), &place) {
            Ok(child) => {
                let answer = json!({ "folder": place, "pid": child.id() });
                machines.push(child);
                answer
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(reason)) => json!({ "skip": reason }),
                None => json!({ "error": format!("{error:#}") }),
            },
        };
        if writeln!(io::stdout(), "{answer}").is_err() {
            break;
        }
    }
    for mut machine in machines {
        // It may have ended.
        let _ = machine.kill();
        let _ = machine.wait();
    }
    let _ = fs::remove_dir_all(&folder);
    ExitCode::SUCCESS
}

fn start(suite: &str, payload: &Path, folder: &Path) -> Result<Child> {
    let image = Image::of(suite)?;
    fs::create_dir_all(folder)?;
    let disk = |path: &Path, option: &str| format!("file={},format=raw,if=virtio,{option}", path.display());
    Command::new("qemu-system-x86_64")
        // As in boot.rs: time is what was executed, and sleep passes at once.
        .args("-accel tcg -cpu max,cx16=off -m 1024 -icount shift=1,sleep=off -nodefaults -display none".split(' '))
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0"])
        .arg("-kernel")
        .arg(image.kernel)
        .arg("-initrd")
        .arg(image.initramfs)
        .args(["-drive", &disk(&image.disk, "snapshot=on"), "-drive", &disk(payload, "readonly=on")])
        // The node's own card, and the guests' uplink.
        .args("-netdev hubport,hubid=0,id=own -device virtio-net-pci,netdev=own,romfile=".split(' '))
        .args("-netdev hubport,hubid=1,id=up -device virtio-net-pci,netdev=up,romfile=".split(' '))
        .args(["-serial", &format!("file:{}", folder.join("console").display())])
        .args(["-serial", &format!("unix:{},server=on,wait=off", folder.join("serial").display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("errors"))?)
        .spawn()
        .map_err(|error| Skip(format!("qemu-system-x86_64 (Debian's package qemu-system-x86): {error}")).into())
}

/// A running machine.
pub struct System {
    folder: PathBuf,
    pid: Pid,
    serial: BufReader<UnixStream>,
}

impl System {
    /// Boots a suite of Debian, with a file as its second disk.
    ///
    /// # Errors
    /// A `Skip` where that cannot be.
    pub fn boot(suite: &str, payload: &Path) -> Result<Self> {
        let answer = ask(&json!([suite, payload]))?;
        if let Some(reason) = answer["skip"].as_str() {
            bail!(Skip(reason.to_owned()));
        }
        let parts = answer["folder"].as_str().zip(answer["pid"].as_i64());
        let (folder, pid) = parts.with_context(|| format!("{suite}: {answer}"))?;
        let folder = PathBuf::from(folder);
        let mut socket = None;
        until("QEMU to listen", || {
            socket = UnixStream::connect(folder.join("serial")).ok();
            Ok(socket.is_some())
        })
        .with_context(|| fs::read_to_string(folder.join("errors")).unwrap_or_default())?;
        let socket = socket.context("no socket")?;
        socket.set_read_timeout(Some(SILENCE))?;
        let mut system = Self { folder, pid: Pid::from_raw(pid.try_into()?), serial: BufReader::new(socket) };
        system.read_until("@ready")?;
        Ok(system)
    }

    /// Runs a script of bash.
    ///
    /// # Errors
    /// With its output, if it fails.
    pub fn run(&mut self, script: &str) -> Result<()> {
        self.write(&format!("{script}\n@run\n"))?;
        let (output, status) = self.read_until("@end ")?;
        if status != "0" {
            bail!("exit status {status}:\n{output}");
        }
        Ok(())
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.write("echo b >/proc/sysrq-trigger\n@run\n")?;
        self.read_until("@ready").map(drop)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.serial.get_mut().write_all(text.as_bytes()).context("the machine's serial port")
    }

    /// The output up to a line that begins with `mark`, and the rest of this line.
    fn read_until(&mut self, mark: &str) -> Result<(String, String)> {
        let mut output = String::new();
        loop {
            let mut line = Vec::new();
            let length = self.serial.read_until(b'\n', &mut line).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if let Some((_, rest)) = line.split_once(mark) {
                return Ok((output, rest.trim().to_owned()));
            }
            output += &line;
            if length == 0 {
                let console = fs::read(self.folder.join("console")).unwrap_or_default();
                bail!("the machine says nothing more: {output}\nconsole: {}", String::from_utf8_lossy(&console));
            }
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // It may have ended; the process outside, its parent, holds the number until then.
        let _ = kill(self.pid, Signal::SIGTERM);
    }
}

fn ask(request: &Value) -> Result<Value> {
    let mut outside = OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let child = outside.as_mut().context("the process that boots systems")?;
    let (requests, answers) = child.stdin.as_mut().zip(child.stdout.as_mut()).context("its pipes")?;
    writeln!(requests, "{request}")?;
    let mut line = String::new();
    // One line answers one, so nothing of the next is lost with this buffer.
    BufReader::new(answers).read_line(&mut line)?;
    serde_json::from_str(&line).context("the process that boots systems")
}
