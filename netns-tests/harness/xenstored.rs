//! Debian's own xenstored, without Xen: with a library in place of those by which it speaks to the hypervisor.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{package, until};

/// The libraries that it is linked with.
const LIBRARIES: [&str; 3] = ["libxenevtchn.so.1", "libxengnttab.so.1", "libxenctrl.so."];
const READ: u32 = 2;
const WRITE: u32 = 11;

/// A running one; it ends when this is dropped.
pub struct Xenstored {
    folder: PathBuf,
    child: Child,
}

impl Xenstored {
    /// Fetches it, and starts it with a folder of its own.
    ///
    /// # Errors
    /// A `Skip` if there is no package to be had.
    pub fn start() -> Result<Self> {
        let package = package::fetch_outside("", "xen-system-amd64", "xen-utils-", "")?;
        let program = package.folder.join(format!("usr/lib/xen-{}/bin/xenstored", package.version));
        // A socket's path has 107 bytes, so it cannot be below target/.
        let folder = std::env::temp_dir().join(format!("snf-network-xenstored-{}", process::id()));
        fs::create_dir_all(&folder)?;
        let (source, library) = (folder.join("stub.c"), folder.join("stub.so"));
        fs::write(&source, include_str!("xenstored.c"))?;
        let status = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status()?;
        ensure!(status.success(), "gcc: {status}");
        for name in LIBRARIES {
            let version = if name.ends_with('.') { package.version.as_str() } else { "" };
            symlink(&library, folder.join(format!("{name}{version}")))?;
        }
        let mut command = Command::new(&program);
        command.args(["--no-fork", "--internal-db", "--pid-file"]).arg(folder.join("pid"));
        command.env("XENSTORED_RUNDIR", &folder).env("XENSTORED_ROOTDIR", &folder).env("LD_LIBRARY_PATH", &folder);
        // It complains of libraries without versions.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| program.display().to_string())?;
        let started = Self { folder, child };
        until("xenstored's socket", || Ok(UnixStream::connect(started.folder.join("socket")).is_ok()))?;
        Ok(started)
    }

    /// XENSTORED_RUNDIR.
    pub fn rundir(&self) -> &Path {
        &self.folder
    }

    /// Writes a value, as the toolstack does.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        self.ask(WRITE, format!("{path}\0{value}").as_bytes()).map(drop)
    }

    /// Reads a value.
    pub fn read(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(self.ask(READ, format!("{path}\0").as_bytes())?)?)
    }

    /// An exchange: type, request, transaction, length and payload (io/xs_wire.h).
    fn ask(&self, kind: u32, payload: &[u8]) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.folder.join("socket"))?;
        let header = [kind, 1, 0, u32::try_from(payload.len())?].map(u32::to_ne_bytes).concat();
        stream.write_all(&[&header, payload].concat())?;
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let field = |place: usize| -> Result<u32> { Ok(u32::from_ne_bytes(header[place..place + 4].try_into()?)) };
        let mut answer = vec![0; field(12)? as usize];
        stream.read_exact(&mut answer)?;
        ensure!(field(0)? == kind, "{}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
