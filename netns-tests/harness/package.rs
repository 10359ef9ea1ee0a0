//! Debian's packages, from the sources that this machine has: unpacked and kept below target/, never installed.
//!
//! They need the network and the user of whoever runs the tests, so a process that stays outside our namespaces fetches them.

use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Skip;

/// The argument that makes this binary the process which fetches packages.
const FETCH: &str = "--fetch-packages";

/// An unpacked package.
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder that stands for the root.
    pub folder: PathBuf,
    /// The version in its name.
    pub version: String,
}

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// What this machine has them from.
    Own,
    /// A suite of Debian, from the mirror that this machine has its own from, by a list of sources in a folder of ours.
    Suite(PathBuf),
}

impl Source {
    /// What the suite has now; the empty name means this machine's own sources.
    fn of(all: &Path, suite: &str) -> Result<Self> {
        if suite.is_empty() {
            return Ok(Self::Own);
        }
        let mirror = mirror(all)?;
        let folder = all.join(format!("apt-{suite}"));
        for inner in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        fs::write(folder.join("sources.list"), format!("deb {mirror} {suite} main\n"))?;
        let source = Self::Suite(folder);
        source.output(all, "apt-get", &["-qq", "update"])?;
        Ok(source)
    }

    /// One of apt's commands.
    fn output(&self, folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
        let Self::Suite(place) = self else { return output(folder, program, arguments) };
        let mut options = vec!["-oDir::Etc::sourceparts=/dev/null".to_owned(), "-oAcquire::Languages=none".to_owned()];
        for (option, name) in [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")] {
            options.push(format!("-oDir::{option}={}", place.join(name).display()));
        }
        let words: Vec<_> = options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        output(folder, program, &words)
    }
}

/// The mirror that this machine has its own packages of Debian from.
///
/// # Errors
/// A `Skip` if there is none.
pub fn mirror(folder: &Path) -> Result<String> {
    let kinds = ["Identifier: Packages", "Origin: Debian", "Label: Debian"];
    let mirrors = output(folder, "apt-get", &[&["indextargets", "--format", "$(REPO_URI)"], &kinds[..]].concat())?;
    let mirror = mirrors.lines().next().with_context(|| Skip("apt knows no mirror of Debian".to_owned()))?;
    Ok(mirror.to_owned())
}

/// Fetches a package of a suite (empty: of this machine's own) once; later runs take the unpacked one. Its name is `prefix`, a version and `suffix`, where the version is
/// the one of what `meta` depends on: `prefix` and the version. For those outside of our namespaces.
///
/// # Errors
/// A `Skip` if there is none to be had here.
pub fn fetch(suite: &str, meta: &str, prefix: &str, suffix: &str) -> Result<Package> {
    let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("packages");
    fs::create_dir_all(&all)?;
    let source = Source::of(&all, suite)?;
    let depends = source.output(&all, "apt-cache", &["depends", meta])?;
    let version = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")?.strip_prefix(prefix));
    let version = version.with_context(|| Skip(format!("{meta} depends on no {prefix}...: {depends:?}")))?;
    let name = format!("{prefix}{version}{suffix}");
    let package = Package { folder: all.join(&name), version: version.to_owned() };
    if !package.folder.exists() {
        let making = all.join(format!("{name}.{}", process::id()));
        fs::create_dir_all(&making)?;
        let made = unpack(&source, &making, &name).and_then(|()| Ok(fs::rename(&making, &package.folder)?));
        if made.is_err() {
            // The error counts.
            let _ = fs::remove_dir_all(&making);
        }
        // Another run may have been faster.
        made.or_else(|error| if package.folder.exists() { Ok(()) } else { Err(error) })?;
    }
    Ok(package)
}

fn unpack(source: &Source, folder: &Path, package: &str) -> Result<()> {
    source.output(folder, "apt-get", &["-qq", "download", package])?;
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let file = entries.iter().map(|it| it.path()).find(|it| it.extension().is_some_and(|it| it == "deb"));
    let file = file.with_context(|| format!("apt-get download {package} left no file"))?;
    output(folder, "dpkg-deb", &["-x", &file.to_string_lossy(), "."])?;
    Ok(fs::remove_file(file)?)
}

/// Runs a command to its end; what cannot be run, or fails, is a reason to skip.
fn output(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let run = || -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C").output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    };
    let skip = |error| Skip(format!("no package of Debian's: {error:#}"));
    Ok(run().with_context(|| format!("{program} {}", arguments.join(" "))).map_err(skip)?)
}

/// Answers each line of standard input, the four arguments of `fetch`, with where the package is or why it is not: if this
/// process was started to do so.
pub fn other_process() -> Option<ExitCode> {
    if env::args().nth(1).as_deref() != Some(FETCH) {
        return None;
    }
    for line in io::stdin().lines().map_while(Result::ok) {
        let wanted: [String; 4] = serde_json::from_str(&line).unwrap_or_default();
        let [suite, meta, prefix, suffix] = &wanted;
        let answer = match fetch(suite, meta, prefix, suffix) {
            Ok(package) => json!({ "folder": package.folder, "version": package.version }),
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(reason)) => json!({ "skip": reason }),
                None => json!({ "error": format!("{error:#}") }),
            },
        };
        if writeln!(io::stdout(), "{answer}").is_err() {
            break;
        }
    }
    Some(ExitCode::SUCCESS)
}

/// The process outside; it ends when ours does, as its standard input does.
static OUTSIDE: Mutex<Option<Child>> = Mutex::new(None);

/// Starts it. Call this before entering any namespace.
pub fn start_outside() -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(FETCH).stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().context("the process that fetches packages")?;
    *OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    Ok(())
}

/// As `fetch`, by the process outside.
///
/// # Errors
/// A `Skip` if there is none to be had here.
pub fn fetch_outside(suite: &str, meta: &str, prefix: &str, suffix: &str) -> Result<Package> {
    let mut outside = OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let child = outside.as_mut().context("the process that fetches packages")?;
    let pipes = child.stdin.as_mut().zip(child.stdout.as_mut());
    let (requests, answers) = pipes.context("its pipes")?;
    writeln!(requests, "{}", json!([suite, meta, prefix, suffix]))?;
    let mut line = String::new();
    // One line answers one, so nothing of the next is lost with this buffer.
    BufReader::new(answers).read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line).context("the process that fetches packages")?;
    if let Some(reason) = answer["skip"].as_str() {
        return Err(Skip(reason.to_owned()).into());
    }
    let parts = answer["folder"].as_str().zip(answer["version"].as_str());
    let (folder, version) = parts.with_context(|| format!("{meta}: {answer}"))?;
    Ok(Package { folder: folder.into(), version: version.to_owned() })
}
