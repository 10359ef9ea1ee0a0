//! The machine's file system: a cpio archive that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kernel::{self, Kernel};
use crate::harness::Skip;
use crate::harness::build::STATIC;

/// Type bits of a mode (stat(2)).
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making (format "newc").
pub struct Archive<W> {
    out: W,
    folders: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive<BufWriter<File>> {
    /// An empty one in a new file.
    pub fn new(to: &Path) -> Result<Self> {
        Ok(Self { out: BufWriter::new(File::create(to)?), folders: BTreeSet::new(), entries: 0 })
    }
}

impl<W: Write> Archive<W> {
    /// Adds an entry; `device` is major and minor number of a device.
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_str().context("a path in UTF-8")?;
        self.entries += 1;
        let [size, name_size] = [content.len(), name.len() + 1].map(u32::try_from);
        let (size, name_size) = (size?, name_size?);
        // Inode, mode, owner, group, links, time, size, device, device number, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        let header = 6 + 8 * fields.len();
        self.padded(name.as_bytes(), 1, header)?;
        self.padded(content, 0, 0)
    }

    /// Writes bytes and at least `least` zeros, up to a multiple of four from `before` bytes ahead of them.
    fn padded(&mut self, bytes: &[u8], least: usize, before: usize) -> Result<()> {
        let end = (before + bytes.len() + least).next_multiple_of(4) - before;
        self.out.write_all(bytes)?;
        Ok(self.out.write_all(&[0; 4][..end - bytes.len()])?)
    }

    pub fn folder(&mut self, path: &Path) -> Result<()> {
        if path.parent().is_none() || self.folders.contains(path) {
            return Ok(());
        }
        path.parent().map_or(Ok(()), |parent| self.folder(parent))?;
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, (0, 0), &[])
    }

    pub fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.folder(parent))?;
        self.entry(path, FILE, (0, 0), content)
    }

    fn link(&mut self, path: &Path, to: &str) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.folder(parent))?;
        self.entry(path, LINK, (0, 0), to.as_bytes())
    }

    pub fn end(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        Ok(self.out.flush()?)
    }
}

/// Writes it: /init, the program where the tests look for it, the tools, all their libraries, other files and folders, what
/// /init is to read, and the modules in a folder where their names sort as they are to be loaded.
pub fn write(to: &Path, kernel: &Kernel, tools: &[&str], files: &[&str], content: (&str, &str)) -> Result<()> {
    let mut archive = Archive::new(to)?;
    for folder in ["proc", "sys", "dev", "tmp", "run", "root", env!("CARGO_TARGET_TMPDIR")] {
        archive.folder(&Path::new("/").join(folder))?;
    }
    for link in ["/sbin", "/usr/bin", "/usr/sbin"] {
        archive.link(Path::new(link), "/bin")?;
    }
    // Before devtmpfs is mounted, /init itself needs a console.
    archive.entry(Path::new("/dev/console"), CHARACTER_DEVICE, (5, 1), &[])?;
    let (init, moment) = (env::current_exe()?, super::boot::with_suffix(to, ".stripped"));
    archive.file(Path::new("/init"), &stripped(&init, &moment)?)?;
    let program = PathBuf::from(STATIC);
    archive.file(&program, &stripped(&program, &moment)?)?;
    let mut others: BTreeSet<PathBuf> = [libraries(&init)?, libraries(&program)?].into_iter().flatten().collect();
    for tool in tools {
        let place = found(tool)?;
        others.extend(libraries(&place)?);
        // Where a process without PATH looks, as /init is; the other folders are links to it.
        archive.file(&Path::new("/bin").join(tool), &fs::read(place)?)?;
    }
    for file in files {
        all_files(Path::new(file), &mut others)?;
    }
    for file in &others {
        // Symbolic links are followed: each name gets the content.
        archive.file(file, &fs::read(file).with_context(|| file.display().to_string())?)?;
    }
    archive.file(Path::new(content.0), content.1.as_bytes())?;
    for (number, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}/{number:03}-{name}", super::guest::MODULES);
        archive.file(Path::new(&name), &kernel::content(module)?)?;
    }
    archive.end()
}

/// A binary without what is only for debuggers, which is most of it; `at` is a file for the moment.
fn stripped(binary: &Path, at: &Path) -> Result<Vec<u8>> {
    let output = Command::new("strip").args(["--strip-debug", "-o"]).arg(at).arg(binary).output().context("strip")?;
    ensure!(output.status.success(), "strip: {}", String::from_utf8_lossy(&output.stderr).trim());
    let content = fs::read(at)?;
    fs::remove_file(at)?;
    Ok(content)
}

/// The file, or those in the folder.
fn all_files(path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.insert(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        all_files(&entry?.path(), files)?;
    }
    Ok(())
}

/// Where a tool is that the machine running the tests has.
fn found(tool: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let place = folders.map(|folder| folder.join(tool)).find(|place| place.is_file());
    place.with_context(|| Skip(format!("{tool} is not installed")))
}

/// The shared libraries of a binary and its loader, as ldd tells them (`NAME => PATH (0x...)`, `LOADER (0x...)`).
fn libraries(binary: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(binary).env("LC_ALL", "C").output().context("ldd")?;
    let text = String::from_utf8(output.stdout)?;
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(|word| PathBuf::from(word.trim_end_matches(':'))).filter(|path| path != binary).collect())
}
