//! All of it holds for the thread that asks for it, so each test has one of its own.

use std::ffi::CString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nix::errno::Errno;
use nix::unistd::execv;

use super::*;

fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = text.lines().find(|line| line.starts_with(key)).expect(key);
    line[key.len()..].trim_start_matches(':').trim().to_owned()
}

/// If this were allowed, the tests would end here, with a failure.
fn exec_is_refused() {
    let program = CString::new("/bin/false").expect("a path");
    assert_eq!(execv(&program, &[&program]), Err(Errno::EPERM));
}

#[test]
fn only_what_is_kept_is_kept() {
    thread::spawn(|| {
        let before = u64::from_str_radix(&status("CapPrm"), 16).expect("a number");
        keep(&[Capability::NetAdmin, Capability::NetRaw]).expect("capset");
        let expected = format!("{:016x}", before & 0x3000);
        assert_eq!([status("CapPrm"), status("CapEff")], [expected.clone(), expected]);
        keep(&[]).expect("capset");
        assert_eq!([status("CapPrm"), status("CapEff"), status("CapInh")], ["0000000000000000"; 3]);
    })
    .join()
    .expect("no panic");
}

#[test]
fn no_program_is_started() {
    thread::spawn(|| {
        allow(Calls::NoProgram).expect("seccomp");
        assert_eq!((status("Seccomp").as_str(), status("NoNewPrivs").as_str()), ("2", "1"));
        exec_is_refused();
        let other = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        assert_eq!(other, Err(Errno::EPERM));
        // Everything else goes on.
        fs::read("/proc/self/status").expect("a file");
        nix::unistd::pipe().expect("a pipe");
    })
    .join()
    .expect("no panic");
}

#[test]
fn a_confined_process_talks_and_writes_its_log_only() {
    let folder = std::env::temp_dir().join(format!("snf-network-confine-{}", std::process::id()));
    let (state, log) = (folder.join("state"), folder.join("log"));
    for folder in [&state, &log] {
        fs::create_dir_all(folder).expect("a folder");
        fs::write(folder.join("file"), "text").expect("a file");
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let confined = thread::scope(|scope| {
        let confined = scope.spawn(|| {
            let reach = Reach { reads: Some(&[&state]), writes: &[&log], connects: true };
            confine(&[], &reach).expect("confined");
            exec_is_refused();
            assert_eq!(nix::unistd::pipe().map(drop), Err(Errno::EPERM), "what is not listed");
            assert_eq!(fs::read_to_string(state.join("file")).expect("may be read"), "text");
            for file in ["file", "new"] {
                let mut log = crate::sys::files::append(&log.join(file), 0o600).expect("may be written");
                io::Write::write_all(&mut log, b"more").expect("written");
            }
            let _socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            TcpStream::connect_timeout(&address, std::time::Duration::from_secs(20)).expect("a connection");
            let refused =
                |done: io::Result<()>| done.err().map(|error| error.kind()) == Some(io::ErrorKind::PermissionDenied);
            [
                refused(fs::read("/etc/passwd").map(drop)),
                refused(fs::write(state.join("file"), "x")),
                refused(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
            ]
        });
        confined.join().expect("no panic")
    });
    // As far as this kernel can: Landlock is not on every one, nor its newer versions.
    let listed = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if listed.contains("landlock") {
        assert_eq!(confined[..2], [true; 2]);
    }
    fs::remove_dir_all(folder).expect("our own folder");
}
