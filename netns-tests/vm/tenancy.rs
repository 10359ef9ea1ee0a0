//! A real guest on a TAP of a test's node: Debian's kernel in QEMU.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::kernel::{Kernel, SERIES};
use super::qmp::Monitor;
use super::{initramfs, tenant};
use crate::harness::frame::Mac;
use crate::harness::netns::Netns;
use crate::harness::port::Port;
use crate::harness::{Skip, patience, until};

const QEMU: &str = "qemu-system-x86_64";
const TOOLS: &[&str] = &["ip", "ping", "stty"];

/// What a guest is booted from, and the folder of its sockets.
pub struct Image {
    kernel: Kernel,
    folder: PathBuf,
    mac: Mac,
    /// How many machines were started with it.
    machines: AtomicU32,
}

impl Image {
    /// Of a guest whose card has this MAC and is set up by these lines of `ip -batch`.
    ///
    /// # Errors
    /// A `Skip` without QEMU or the kernel.
    pub fn of(mac: Mac, setup: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_err() {
            bail!(Skip(format!("{QEMU} cannot be run (Debian's package qemu-system-x86)")));
        }
        // A socket's path has 107 bytes, so the folder cannot be below target/.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("snf-network-guest-{}-{number}", process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let image = Self { kernel: SERIES[1].fetch_for_guest()?, folder, mac, machines: AtomicU32::new(0) };
        initramfs::write(&image.folder.join("initramfs"), &image.kernel, TOOLS, &[], (tenant::SETUP, setup))?;
        Ok(image)
    }

    /// Boots it behind a TAP, whose descriptor it gets, as from Ganeti.
    pub fn boot(&self, netns: &Netns, tap: &Port) -> Result<Tenant<'_>> {
        let mut tenant = self.start(netns, tap, false)?;
        tenant.hears(tenant::READY)?;
        Ok(tenant)
    }

    /// A machine behind a TAP that waits for a running guest.
    pub fn expect(&self, netns: &Netns, tap: &Port) -> Result<Tenant<'_>> {
        self.start(netns, tap, true)
    }

    fn start(&self, netns: &Netns, tap: &Port, incoming: bool) -> Result<Tenant<'_>> {
        let number = self.machines.fetch_add(1, Ordering::Relaxed);
        let place = |kind: &str| self.folder.join(format!("{kind}-{number}"));
        let listening = |kind: &str| format!("unix:{},server=on,wait=off", place(kind).display());
        let mut command = Command::new(QEMU);
        command
            .args("-accel tcg -cpu max,cx16=off -m 256 -nodefaults -display none -no-reboot".split(' '))
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.folder.join("initramfs"))
            .args(["-serial", &format!("file:{}", place("console").display()), "-serial", &listening("serial")])
            .args(["-qmp", &listening("monitor"), "-netdev", "tap,id=nic,fd=0"])
            .args(["-device", &format!("virtio-net-pci,netdev=nic,mac={},romfile=", self.mac)])
            .stdin(Stdio::from(tap.descriptor()?))
            .stdout(Stdio::null())
            .stderr(File::create(place("errors"))?);
        let door = place("door");
        if incoming {
            command.args(["-incoming", &format!("unix:{}", door.display())]);
        }
        let mut child = netns.run(|| command.spawn()).context(QEMU)?;
        let mut open = [None, None];
        until("QEMU to listen", || {
            ensure!(child.try_wait()?.is_none(), "{QEMU}: {}", fs::read_to_string(place("errors"))?);
            for (socket, name) in open.iter_mut().zip(["serial", "monitor"]).filter(|it| it.0.is_none()) {
                *socket = listener(&place(name)).with_context(|| name.to_owned())?;
            }
            Ok(open.iter().all(Option::is_some) && (!incoming || door.exists()))
        })?;
        let [Some(serial), Some(monitor)] = open else { bail!("QEMU does not listen") };
        serial.set_read_timeout(Some(patience() * 6))?;
        let (serial, monitor) = (BufReader::new(serial), Monitor::on(monitor)?);
        Ok(Tenant { console: place("console"), door, child, serial, monitor, image: PhantomData })
    }
}

/// Who listens there; nobody yet between bind(2), which makes the file, and listen(2).
fn listener(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => Ok(None),
        socket => socket.map(Some),
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A folder left behind in /tmp harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running guest, or a machine that waits for one.
pub struct Tenant<'a> {
    console: PathBuf,
    /// The socket by which a guest comes in.
    door: PathBuf,
    child: Child,
    serial: BufReader<UnixStream>,
    monitor: Monitor,
    /// Its files are the image's.
    image: PhantomData<&'a Image>,
}

impl Tenant<'_> {
    /// Lets it send a frame; says so if its kernel refused to.
    pub fn send(&mut self, frame: &[u8]) -> Result<String> {
        self.ask(&frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Lets it run a command, of words without spaces.
    pub fn run(&mut self, command: &str) -> Result<()> {
        let wrong = self.ask(&format!("{}{command}", tenant::RUN))?;
        ensure!(wrong.is_empty(), "in the guest: {wrong}");
        Ok(())
    }

    /// Lets it ping an address.
    pub fn ping(&mut self, destination: IpAddr) -> Result<()> {
        self.run(&format!("ping -n -c1 -W{} {destination}", patience().as_secs()))
    }

    /// Which boot of a guest this is, and the hundredths of a second that its process has counted.
    pub fn ticks(&mut self) -> Result<(String, u64)> {
        let answer = self.ask(tenant::TICKS)?;
        let (boot, count) = answer.split_once(' ').with_context(|| format!("ticks: {answer:?}"))?;
        Ok((boot.to_owned(), count.parse()?))
    }

    /// Moves the running guest to a machine that expects one; says for how many milliseconds it stood still. This machine
    /// remains, stopped.
    pub fn move_to(&mut self, other: &Self) -> Result<u64> {
        self.monitor.execute("migrate", &json!({ "uri": format!("unix:{}", other.door.display()) }))?;
        let mut downtime = 0;
        until("the guest to move", || {
            let state = self.monitor.execute("query-migrate", &json!({}))?;
            ensure!(state["status"] != "failed", "QEMU cannot move the guest: {state}");
            downtime = state["downtime"].as_u64().unwrap_or_default();
            Ok(state["status"] == "completed")
        })?;
        Ok(downtime)
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        self.serial.get_mut().write_all(format!("{line}\n").as_bytes()).context("the guest's serial port")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.serial.read_line(&mut line).is_ok_and(|length| length > 0) {
            return Ok(line.trim().to_owned());
        }
        let console = fs::read(&self.console).unwrap_or_default();
        bail!("the guest says nothing; its console: {}", String::from_utf8_lossy(&console));
    }

    fn hears(&mut self, word: &str) -> Result<()> {
        let answer = self.answer()?;
        ensure!(answer == word, "the guest said {answer:?} instead of {word:?}");
        Ok(())
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
