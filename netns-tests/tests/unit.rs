//! The service that runs `reconcile` at boot and whenever another program cleared what is not its own: that what it is confined to is
//! enough. There is no systemd here to confine it, so each directive of the unit is carried out by what systemd uses for it: a
//! mount namespace, the bounding set, filters of system calls. A directive that this does not know is an error.
#![expect(unsafe_code, reason = "pre_exec and a filter of seccomp have no safe form")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc::{self, c_ulong, sock_filter, sock_fprog};

use crate::Test;
use crate::harness::build::executable;
use crate::harness::topology::Node;
use crate::tests::crash::{damage, old_routed, routed, settled, uplink};
use crate::tests::status::in_sync;

pub const TESTS: &[Test] = &[
    ("unit::reconcile_works_within_its_confinement", reconcile_works_within_its_confinement),
    ("unit::its_confinement_confines", its_confinement_confines),
    ("unit::systemd_understands_it", systemd_understands_it),
];

/// The unit, as it is installed.
fn unit() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/snf-network-reconcile.service")
}

/// What a service is confined to.
#[derive(Default)]
struct Sandbox {
    /// Commands of a shell that make the mount namespace, and the umask.
    prepared: String,
    /// Arguments of setpriv.
    privileges: Vec<String>,
    /// Address families of its sockets.
    families: Vec<u32>,
    /// System calls that it may make, by name.
    calls: BTreeSet<String>,
    /// Whether memory is never writable and executable.
    no_new_code: bool,
}

impl Sandbox {
    fn of_unit() -> Result<Self> {
        let text = fs::read_to_string(unit())?;
        let (_, service) = text.split_once("[Service]\n").context("[Service]")?;
        let mut sandbox = Self::default();
        let lines = service.lines().take_while(|line| !line.starts_with('['));
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').with_context(|| line.to_owned())?;
            sandbox.add(key, value).with_context(|| line.to_owned())?;
        }
        Ok(sandbox)
    }

    fn add(&mut self, key: &str, value: &str) -> Result<()> {
        // What only root of the whole machine has, or what takes a call that its own filter forbids: see below.
        let forbids_calls =
            ["RestrictNamespaces", "RestrictRealtime", "LockPersonality", "ProtectClock", "ProtectHostname"];
        match (key, value) {
            ("Type", "oneshot") | ("SystemCallArchitectures", "native") => {}
            ("ExecStart", "/usr/sbin/snf-network reconcile") => {}
            ("SystemCallErrorNumber", "EPERM") | ("SuccessExitStatus", "SIGTERM") => {}
            ("RestrictSUIDSGID", _) => {
                bail!("it answers openat2(2), which the program opens its files by, with ENOSYS")
            }
            ("UMask", mask) => self.prepare(&format!("umask {mask}")),
            ("CapabilityBoundingSet", names) => {
                let kept: String = names
                    .split_whitespace()
                    .map(|it| format!(",+{}", it.trim_start_matches("CAP_").to_lowercase()))
                    .collect();
                self.privileges.push(format!("--bounding-set=-all{kept}"));
                self.privileges.push("--inh-caps=-all".to_owned());
            }
            ("NoNewPrivileges", "yes") => self.privileges.push("--no-new-privs".to_owned()),
            ("RestrictAddressFamilies", names) => {
                for name in names.split_whitespace() {
                    self.families.push(match name {
                        "AF_NETLINK" => libc::AF_NETLINK.cast_unsigned(),
                        "AF_UNIX" => libc::AF_UNIX.cast_unsigned(),
                        other => bail!("{other} is not expected"),
                    });
                }
            }
            ("SystemCallFilter", set) => self.calls = calls_of(set)?,
            ("MemoryDenyWriteExecute", "yes") => self.no_new_code = true,
            ("ProtectSystem", "full") => ["/usr", "/boot", "/efi", "/etc"].iter().for_each(|it| self.read_only(it)),
            ("ProtectHome", "read-only") => ["/home", "/root", "/run/user"].iter().for_each(|it| self.read_only(it)),
            ("ProtectControlGroups", "yes") => self.read_only("/sys/fs/cgroup"),
            ("ProtectKernelModules", "yes") => self.hide("/usr/lib/modules"),
            ("ProtectKernelLogs", "yes") => self.prepare("! test -e /dev/kmsg || mount --bind /dev/null /dev/kmsg"),
            ("PrivateTmp", "yes") => ["/tmp", "/var/tmp"].iter().for_each(|it| self.hide(it)),
            // Of the whole machine's control groups.
            ("DevicePolicy", "closed") | ("DeviceAllow", "/dev/net/tun rw") => {}
            (key, "yes") if forbids_calls.contains(&key) => {}
            _ => bail!("not known to this test"),
        }
        Ok(())
    }

    fn prepare(&mut self, command: &str) {
        let _infallible = writeln!(self.prepared, "{command}");
    }

    fn read_only(&mut self, folder: &str) {
        self.prepare(&format!(
            "if test -d {folder}; then mount --rbind {folder} {folder}; mount --make-rprivate {folder}; remount_read_only {folder}; fi"
        ));
    }

    fn hide(&mut self, folder: &str) {
        self.prepare(&format!("! test -d {folder} || mount -t tmpfs tmpfs {folder}"));
    }

    /// Runs a command of a shell in it.
    fn run(&self, node: &Node, command: &str) -> Result<String> {
        let files = &node.files.folder;
        let program = Path::new(executable()).parent().context("its folder")?;
        // Flags that are locked have to be named again. Where the program and its files are by now, they stay: on a node they are
        // elsewhere.
        let script = format!(
            "set -e\n\
             remount_read_only() {{ findmnt -rno TARGET,VFS-OPTIONS -R \"$1\" | while read -r target options; do \
             mount -o \"remount,bind,$options,ro\" \"$target\"; done; }}\n\
             mkdir -p /run/keep/files /run/keep/program\n\
             mount --bind {files} /run/keep/files\n\
             mount --bind {program} /run/keep/program\n\
             {prepared}\
             mkdir -p {files} {program} 2> /dev/null || :\n\
             mount --bind /run/keep/program {program}\n\
             mount --bind /run/keep/files {files}\n\
             exec setpriv {privileges} -- {command}\n",
            files = files.display(),
            program = program.display(),
            prepared = self.prepared,
            privileges = self.privileges.join(" "),
        );
        let mut shell = Command::new("unshare");
        node.files.environment(shell.args(["--mount", "sh", "-c", &script]));
        let filter = self.filter();
        // SAFETY: prctl(2) allocates nothing and takes no lock; the filter was made before the fork.
        unsafe { shell.pre_exec(move || install(&filter)) };
        node.netns.output(&mut shell)
    }

    /// Sockets of other families are refused with EAFNOSUPPORT, and memory that is writable and executable with EPERM, as systemd
    /// has it (x86-64 only, as the harness is).
    fn filter(&self) -> Vec<sock_filter> {
        let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let jump = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
        let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
        let (equal, any) = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
        let answer = |k: u32| statement(libc::BPF_RET | libc::BPF_K, k);
        let refuse = |errno: i32| answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        // Offsets in struct seccomp_data: the number, the first and the third argument.
        let (call, first, third) = (0, 16, 32);
        let count = u8::try_from(self.families.len()).unwrap_or(u8::MAX);
        let mut filter = vec![load(call), jump(equal, number(libc::SYS_socket), 0, count + 2), load(first)];
        for (place, family) in (0_u8..).zip(&self.families) {
            filter.push(jump(equal, *family, count - place, 0));
        }
        filter.extend([refuse(libc::EAFNOSUPPORT), answer(libc::SECCOMP_RET_ALLOW)]);
        if self.no_new_code {
            let (exec, write) = (libc::PROT_EXEC.cast_unsigned(), libc::PROT_WRITE.cast_unsigned());
            // The answer above is for sockets only: others come here.
            filter[1].jf = count + 3;
            filter.extend([
                load(call),
                jump(equal, number(libc::SYS_mmap), 0, 4),
                load(third),
                jump(any, exec, 0, 6),
                jump(any, write, 4, 5),
                answer(libc::SECCOMP_RET_ALLOW),
                jump(equal, number(libc::SYS_mprotect), 0, 3),
                load(third),
                jump(any, exec, 0, 1),
                refuse(libc::EPERM),
            ]);
        }
        filter.push(answer(libc::SECCOMP_RET_ALLOW));
        filter
    }
}

fn install(filter: &[sock_filter]) -> std::io::Result<()> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: they read their arguments only, and the filter outlives them.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The system calls of a set of systemd's, such as `@system-service`, and those of the sets in it.
fn calls_of(set: &str) -> Result<BTreeSet<String>> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", set]).output().context("systemd-analyze")?;
    ensure!(output.status.success(), "{output:?}");
    let mut calls = BTreeSet::new();
    for word in String::from_utf8(output.stdout)?.lines().skip(1).map(str::trim) {
        match word {
            word if word.is_empty() || word.starts_with('#') => {}
            word if word.starts_with('@') => calls.extend(calls_of(word)?),
            word => drop(calls.insert(word.to_owned())),
        }
    }
    Ok(calls)
}

fn reconcile_works_within_its_confinement() -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    old_routed(node).ifup()?.succeeds()?;
    let right = settled(node)?;
    // It also leads both to another way of routing.
    node.files.set("ROUTING=rule")?;
    uplink(node, "up")?;
    old_routed(node).ifup()?.succeeds()?;
    node.files.set("ROUTING=mark")?;
    damage(&site)?;
    let binding = node.files.bindings().join("tap0");
    let text = fs::read_to_string(&binding)?;
    fs::remove_file(&binding)?;
    let sandbox = Sandbox::of_unit()?;
    let trace = node.files.folder.join("trace");
    sandbox.run(node, &format!("strace -f -qq -o {} {} reconcile", trace.display(), executable()))?;
    right.returns_in(&node.netns, |state| state)?;
    ensure!(fs::read_to_string(&binding)? == text, "the binding is another");
    in_sync(node)?;
    ensure!(fs::read_to_string(node.files.log())?.contains(" reconcile "), "no log");

    // What it called is in systemd's set, and nothing of what the other directives forbid.
    let trace = fs::read_to_string(trace)?;
    let mut made = 0;
    for line in trace.lines() {
        let Some((name, _)) = line.split_whitespace().nth(1).unwrap_or_default().split_once('(') else { continue };
        made += 1;
        ensure!(sandbox.calls.contains(name), "{name} is not in the unit's SystemCallFilter: {line}");
        let forbidden =
            ["unshare", "setns", "sched_setscheduler", "sched_setattr", "personality", "clock_settime", "sethostname"];
        ensure!(!forbidden.contains(&name) && !line.contains("CLONE_NEW"), "{line}");
        ensure!(!line.contains("S_ISUID") && !line.contains("S_ISGID"), "{line}");
        ensure!(
            !line.contains("EPERM") && !line.contains("EAFNOSUPPORT") && !line.contains("EROFS"),
            "refused: {line}"
        );
    }
    ensure!(made > 100, "it made {made} calls: {trace}");
    Ok(())
}

/// That what stands for systemd does forbid what the unit forbids: else the test above proves nothing.
fn its_confinement_confines() -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let sandbox = Sandbox::of_unit()?;
    let shell = |script: &str| sandbox.run(node, &format!("sh -c '{script}'"));
    let status = shell("cat /proc/self/status")?;
    for line in ["CapBnd:\t0000000000001002", "CapPrm:\t0000000000001002", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.contains(line), "no {line:?} in {status}");
    }
    for folder in ["/usr", "/etc"] {
        let error = shell(&format!("touch {folder}/snf-network-test")).err().context("it wrote")?;
        ensure!(format!("{error:#}").contains("Read-only file system"), "{folder}: {error:#}");
    }
    shell("test -c /dev/null && test -z \"$(ls /usr/lib/modules 2> /dev/null)\"")?;
    let python = |text: &str| sandbox.run(node, &format!("python3 -c '{text}'"));
    for family in ["AF_INET", "AF_INET6", "AF_PACKET"] {
        let error = python(&format!("import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)")).err();
        let error = format!("{:#}", error.with_context(|| family.to_owned())?);
        ensure!(error.contains("Address family not supported"), "{family}: {error}");
    }
    python("import socket; socket.socket(socket.AF_UNIX); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)")?;
    let error = python("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)").err();
    let error = format!("{:#}", error.context("it made executable memory")?);
    ensure!(error.contains("Operation not permitted"), "{error}");
    python("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE)").map(drop)
}

fn systemd_understands_it() -> Result<()> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["security", "--offline=true", "--threshold=30"]).arg(unit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "it is exposed more than 3.0 of 10: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // What systemd does not understand it only warns of.
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
