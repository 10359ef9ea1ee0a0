//! Real name servers, BIND's and Knot's, each in a network namespace of its own, and a TCP server that answers as a test
//! wants it to.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::Netns;
use super::nic::Outcome;
use super::topology::Files;
use super::{Skip, until};

/// The domain of instances.
pub const FORWARD: &str = "example.org";
/// Reverse zones: a /24, the upper half of it delegated as in RFC 2317, and a /60, whose 15 nibbles no byte ends.
pub const REVERSE: &str = "2.0.192.in-addr.arpa";
pub const CLASSLESS: &str = "128/25.2.0.192.in-addr.arpa";
pub const REVERSE6: &str = "0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
/// A zone below the first one, on the same server.
pub const CHILD: &str = "child.example.org";
/// A zone that takes no updates.
pub const CLOSED: &str = "closed.example";
const ZONES: [(&str, &str); 6] = [
    (
        FORWARD,
        "sub NS ns.elsewhere.test.\nalias CNAME ns\nchild NS ns\n\
         taken A 192.0.2.77\ntaken TXT \"kept\"\ntaken SSHFP 1 1 1111111111111111111111111111111111111111\nother CNAME taken\n",
    ),
    (REVERSE, "77 PTR taken.example.org.\n128/25 NS ns.example.org.\n"),
    (CLASSLESS, ""),
    (REVERSE6, ""),
    (CHILD, ""),
    (CLOSED, "vm A 192.0.2.66\n"),
];

/// What answers on port 53 of a namespace's 127.0.0.1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bind,
    Knot,
}

/// A network namespace with a name server in it, and files for the program with its settings.
pub struct Lab {
    pub netns: Netns,
    pub files: Files,
    /// The clause of the key `ddns`, whose algorithm is hmac-sha256.
    pub key: PathBuf,
    server: Option<Child>,
    /// Of the server.
    pub folder: PathBuf,
    kind: Kind,
}

impl Lab {
    /// BIND, with the settings that it needs.
    pub fn new() -> Result<Self> {
        Self::with(Kind::Bind, Netns::new()?, Files::new()?)
    }

    /// Whichever, beside the files and in the namespace given.
    pub fn with(kind: Kind, netns: Netns, files: Files) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nameserver-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        let key = folder.join("ddns.key");
        let mut lab = Self { netns, files, key, server: None, folder, kind };
        fs::write(&lab.key, generate("hmac-sha256", "ddns")?)?;
        for (zone, records) in ZONES {
            let top = format!(
                "$TTL 300\n$ORIGIN {zone}.\n@ SOA ns.{FORWARD}. h.{FORWARD}. 1 3600 600 86400 300\n@ NS ns.{FORWARD}.\n"
            );
            let ns = if zone == FORWARD { "ns A 127.0.0.1\n" } else { "" };
            let upper = (128..=255).filter(|_| zone == REVERSE);
            let aliases = upper.map(|n| format!("{n} CNAME {n}.128/25\n")).collect::<String>();
            // More than fit in a datagram; the last one is where the server is.
            let many = (1..=40).rev().filter(|_| zone == FORWARD).map(|n| format!("many A 127.0.0.{n}\n"));
            let text = top + ns + records + &aliases + &many.collect::<String>();
            fs::write(lab.zone_file(zone), &text)?;
            // A server may write its own down in its own words.
            fs::write(lab.zone_file(zone).with_extension("initial"), text)?;
        }
        lab.files.set(&format!("SERVER=127.0.0.1\nFZONE={FORWARD}\nKEYFILE={}\nDNS_TIMEOUT=5", lab.key.display()))?;
        lab.start(&[])?;
        Ok(lab)
    }

    fn zone_file(&self, zone: &str) -> PathBuf {
        self.folder.join(format!("{}.zone", zone.replace('/', "-")))
    }

    /// Starts the server, with more variables in its environment, and waits until it answers.
    pub fn start(&mut self, variables: &[(&str, &Path)]) -> Result<()> {
        let (program, configuration, log) = match self.kind {
            Kind::Bind => ("/usr/sbin/named", self.named_conf(), "named.log"),
            Kind::Knot => ("/usr/sbin/knotd", self.knot_conf()?, "knotd.log"),
        };
        if !Path::new(program).exists() {
            return Err(Skip(format!("there is no {program}")).into());
        }
        let file = self.folder.join("server.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        if self.kind == Kind::Bind {
            command.arg("-g");
        }
        let log = self.folder.join(log);
        let output = fs::File::create(&log)?;
        command.arg("-c").arg(&file).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let told = || fs::read_to_string(&log).unwrap_or_default();
        let mut server = self.netns.run(|| command.spawn())?;
        let mut again = true;
        let answers = || {
            // named 9.18.49 was seen to fail an assertion of its own at its start, once in hundreds.
            if server.try_wait()?.is_some() {
                ensure!(std::mem::take(&mut again), "the name server ended, twice");
                server = self.netns.run(|| command.spawn())?;
            }
            Ok(self.dig(&format!("{FORWARD} SOA")).is_ok_and(|it| !it.is_empty()))
        };
        let answered = until("the name server to answer", answers).with_context(told);
        self.server = Some(server);
        answered
    }

    fn named_conf(&self) -> String {
        let folder = self.folder.display();
        let mut text = fs::read_to_string(&self.key).unwrap_or_default();
        for (name, algorithm) in MORE_KEYS {
            let file = self.folder.join(format!("{name}.key"));
            let clause = fs::read_to_string(&file).or_else(|_| generate(algorithm, name)).unwrap_or_default();
            let _shown_by_named = fs::write(&file, &clause);
            text += &clause;
        }
        text += &format!(
            "options {{ directory \"{folder}\"; listen-on port 53 {{ 127.0.0.1; 127.0.0.2; }}; listen-on-v6 {{ none; }};\n\
             pid-file \"{folder}/pid\"; session-keyfile \"{folder}/session.key\"; lock-file none; recursion no;\n\
             dnssec-validation no; notify no; empty-zones-enable no; allow-transfer {{ any; }}; }};\ncontrols {{ }};\n"
        );
        for (zone, _) in ZONES {
            let policy = if zone == CLOSED { "" } else { "allow-update { any; };" };
            let file = self.zone_file(zone);
            text += &format!("zone \"{zone}\" {{ type master; file \"{}\"; {policy} }};\n", file.display());
        }
        text
    }

    fn knot_conf(&self) -> Result<String> {
        let folder = self.folder.display();
        let clause = fs::read_to_string(&self.key)?;
        let secret = clause.split('"').nth(3).context("a secret")?;
        let mut text = format!(
            "server:\n  rundir: \"{folder}\"\n  listen: 127.0.0.1@53\nlog:\n  - target: stdout\n    any: debug\n\
             database:\n  storage: \"{folder}\"\nkey:\n  - id: ddns\n    algorithm: hmac-sha256\n    secret: {secret}\n\
             acl:\n  - id: update\n    key: ddns\n    action: [update, query]\n  - id: look\n    key: ddns\n    action: query\n  - id: all\n    address: 127.0.0.1\n    action: [query, transfer]\nzone:\n"
        );
        for (zone, _) in ZONES {
            let acl = match zone {
                CLOSED => "[look, all]",
                // The key is unknown there.
                CHILD => "[all]",
                _ => "[update, all]",
            };
            text += &format!("  - domain: {zone}\n    file: \"{}\"\n    acl: {acl}\n", self.zone_file(zone).display());
        }
        Ok(text)
    }

    /// Stops the server for good.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It has ended already if these fail.
            let _killed = server.kill();
            let _reaped = server.wait();
        }
    }

    /// Lets the server neither read nor answer, or go on.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let server = self.server.as_ref().context("a server")?;
        Ok(kill(Pid::from_raw(i32::try_from(server.id())?), signal)?)
    }

    /// What `dig +short` prints for a question, its lines sorted.
    pub fn dig(&self, question: &str) -> Result<String> {
        let mut dig = Command::new("dig");
        dig.args(["@127.0.0.1", "+short", "+tries=1", "+time=1", "+norecurse"]).args(question.split_whitespace());
        let text = self.netns.output(&mut dig)?;
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        Ok(lines.join(" "))
    }

    /// The records of a zone that were not there from the start, without those that every change touches.
    pub fn changes(&self, zone: &str) -> Result<Vec<String>> {
        let mut dig = Command::new("dig");
        let text = self.netns.output(dig.args(["@127.0.0.1", "+noall", "+answer", "axfr", zone]))?;
        ensure!(text.contains("SOA"), "no transfer of {zone}: {text}");
        let initial = fs::read_to_string(self.zone_file(zone).with_extension("initial"))?;
        let is_new = |line: &&String| {
            let mut words = line.split(' ');
            let owner = words.next().unwrap_or_default().trim_end_matches(&format!("{zone}.")).trim_end_matches('.');
            let rest: Vec<_> = words.skip(2).collect();
            !["SOA", "NS", "CNAME", "DS"].contains(&rest[0])
                && !initial.lines().any(|known| {
                    known.to_lowercase().starts_with(&format!("{owner} {}", rest.join(" ")).to_lowercase())
                })
        };
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut found: Vec<_> = lines.filter(|line| is_new(&line)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Runs the program with words, and with options separated by spaces.
    pub fn run(&self, words: &[&str], options: &str) -> Result<Outcome> {
        self.files.run(&self.netns, words, options)
    }

    /// What the program's log says.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.files.log()).unwrap_or_default())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
        // A folder left behind in target/ harms nobody.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// Keys that BIND knows besides `ddns`.
pub const MORE_KEYS: [(&str, &str); 6] = [
    ("sha1", "hmac-sha1"),
    ("sha224", "hmac-sha224"),
    ("sha256", "hmac-sha256"),
    ("sha384", "hmac-sha384"),
    ("sha512", "hmac-sha512"),
    ("md5", "hmac-md5"),
];

/// A new key as a clause of named.conf.
pub fn generate(algorithm: &str, name: &str) -> Result<String> {
    let made = Command::new("tsig-keygen").args(["-a", algorithm, name]).output();
    let made = made.map_err(|error| Skip(format!("tsig-keygen: {error}")))?;
    ensure!(made.status.success(), "tsig-keygen: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?)
}

/// What a false server makes of a message.
pub type Answer = fn(&[u8]) -> Option<Vec<u8>>;

/// A server that takes messages by TCP at an address of the namespace and gives back what `answer` makes of each, its
/// length in front included; nothing at all for `None`. It ends with the process.
pub fn answer_with(netns: &Netns, at: &str, answer: Answer) -> Result<()> {
    let at: SocketAddr = at.parse()?;
    let listener = netns.run(|| TcpListener::bind(at))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, answer));
        }
    });
    Ok(())
}

fn serve(mut stream: std::net::TcpStream, answer: Answer) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        match answer(&message) {
            None => thread::sleep(super::patience()),
            Some(bytes) => stream.write_all(&bytes)?,
        }
    }
}

/// Behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes(), message].concat()
}

/// Makes /etc/hosts and /etc/resolv.conf of the tests' mount namespace say where 127.0.0.1 and the search list are.
pub fn own_resolver() -> Result<()> {
    static ONCE: Once = Once::new();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut done = Ok(());
    ONCE.call_once(|| {
        done = [
            ("hosts", "127.0.0.1 localhost ns.hosts.test # ns9\n"),
            ("resolv.conf", "search example.org\nnameserver 127.0.0.9\nnameserver 127.0.0.1\n"),
        ]
        .into_iter()
        .try_for_each(|(name, text)| {
            let file = folder.join(format!("{name}-{}", process::id()));
            fs::write(&file, text)?;
            let target = Path::new("/etc").join(name);
            mount(Some(&file), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind mount")?;
            Ok(fs::remove_file(&file)?)
        });
    });
    done
}

/// A library that moves the clock of a program, in seconds, for LD_PRELOAD.
pub fn clock_shift(folder: &Path, seconds: i64) -> Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(
        &source,
        format!(
            "#define _GNU_SOURCE\n#include <time.h>\n#include <sys/time.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
             int clock_gettime(clockid_t c, struct timespec *t) {{\n\
               int r = syscall(SYS_clock_gettime, c, t);\n\
               if (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE) t->tv_sec += {seconds};\n  return r; }}\n\
             int gettimeofday(struct timeval *v, void *z) {{ struct timespec t; clock_gettime(CLOCK_REALTIME, &t);\n\
               v->tv_sec = t.tv_sec; v->tv_usec = t.tv_nsec / 1000; return 0; }}\n\
             time_t time(time_t *p) {{ struct timespec t; clock_gettime(CLOCK_REALTIME, &t); if (p) *p = t.tv_sec; return t.tv_sec; }}\n"
        ),
    )?;
    let made = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&source).output();
    let made = made.map_err(|error| Skip(format!("cc: {error}")))?;
    ensure!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
    Ok(library)
}
