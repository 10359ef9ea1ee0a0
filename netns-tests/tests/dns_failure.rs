//! Name servers that are down, silent, garbled or false, and input that means harm.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::libc;
use nix::sys::signal::Signal;

use super::interrupted::by_signals;
use crate::Test;
use crate::harness::build::executable;
use crate::harness::nameserver::{
    Answer, CLASSLESS, FORWARD, Lab, REVERSE, REVERSE6, answer_with, clock_shift, framed, own_resolver,
};

pub const TESTS: &[Test] = &[
    ("dns_failure::a_server_that_is_down", a_server_that_is_down),
    ("dns_failure::a_server_that_says_nothing", a_server_that_says_nothing),
    ("dns_failure::a_resolver_that_says_nothing", a_resolver_that_says_nothing),
    ("dns_failure::signals_in_every_exchange", signals_in_every_exchange),
    ("dns_failure::a_server_with_another_time", a_server_with_another_time),
    ("dns_failure::answers_that_are_none", answers_that_are_none),
    ("dns_failure::answers_that_are_false", answers_that_are_false),
    ("dns_failure::unsigned_answers_of_any_length", unsigned_answers_of_any_length),
    ("dns_failure::nothing_injects_a_record", nothing_injects_a_record),
    ("dns_failure::bad_input_is_named", bad_input_is_named),
];

const VM: &str = "--instance vm1 --ip 192.0.2.5";
/// Where false servers answer.
const FALSE: &str = "127.0.0.5:5300";

fn a_server_that_is_down() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.stop();
    lab.run(&["dns", "sync"], VM)?.fails(&["127.0.0.1:53: connect: ", "Connection refused"])?;
    Ok(())
}

fn a_server_that_says_nothing() -> Result<()> {
    let lab = Lab::new()?;
    answer_with(&lab.netns, FALSE, |_| None)?;
    lab.files.set(&format!("DNS_TIMEOUT=2\nSERVER={FALSE}"))?;
    let start = Instant::now();
    lab.run(&["dns", "sync"], VM)?.fails(&["127.0.0.5:5300: ", "no answer within 2.0 s"])?;
    ensure!((2..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    // Another one has its share of the time.
    lab.files.set(&format!("SERVER='{FALSE} 127.0.0.1'"))?;
    lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(lab.dig("vm1.example.org A")? == "192.0.2.5");
    // An answer byte by byte gets no more time than one.
    answer_with(&lab.netns, "127.0.0.6:5300", |_| {
        std::thread::sleep(Duration::from_millis(300));
        Some(vec![0])
    })?;
    lab.files.set("SERVER=127.0.0.6:5300")?;
    let start = Instant::now();
    lab.run(&["dns", "sync"], VM)?.fails(&["no answer within 2.0 s"])?;
    ensure!(start.elapsed().as_secs() < 4, "{:?}", start.elapsed());
    Ok(())
}

fn a_resolver_that_says_nothing() -> Result<()> {
    own_resolver()?;
    let lab = Lab::new()?;
    // The first of resolv.conf takes questions and is silent; then the second one is, too.
    let _first = lab.netns.run(|| UdpSocket::bind("127.0.0.9:53"))?;
    lab.files.set("SERVER=ns\nDNS_TIMEOUT=4")?;
    lab.run(&["dns", "sync"], VM)?.succeeds()?;
    lab.signal(Signal::SIGSTOP)?;
    let start = Instant::now();
    let outcome = lab.run(&["dns", "sync"], VM);
    let taken = start.elapsed();
    lab.signal(Signal::SIGCONT)?;
    outcome?.fails(&["ns:53: address of ns: name server 127.0.0.1:53: no answer within"])?;
    ensure!(taken.as_secs() < 6, "{taken:?}");
    Ok(())
}

/// With a resolver over UDP, and the server over TCP.
fn signals_in_every_exchange() -> Result<()> {
    own_resolver()?;
    let lab = Lab::new()?;
    lab.files.set("SERVER=ns")?;
    let program = || {
        lab.run(&["dns", "remove"], VM)?.succeeds()?;
        let mut command = Command::new(executable());
        lab.files.environment(command.args(["dns", "sync"]).args(VM.split_whitespace()));
        Ok(command)
    };
    let numbers = by_signals(&lab.netns, &[libc::AF_INET], &program)?;
    let connects = numbers.iter().filter(|it| **it == libc::SYS_connect).count();
    ensure!(connects >= 2 && numbers.len() > 8, "{numbers:?}");
    ensure!(lab.dig("vm1.example.org A")? == "192.0.2.5", "it is not there");
    Ok(())
}

fn a_server_with_another_time() -> Result<()> {
    for (shift, expected) in [(1000, "ahead of ours"), (-1000, "behind ours")] {
        let mut lab = Lab::new()?;
        lab.stop();
        let library = clock_shift(&lab.folder, shift)?;
        lab.start(&[("LD_PRELOAD", &library)])?;
        let outcome = lab.run(&["dns", "sync"], VM)?.fails(&["BADTIME: its clock is ", expected])?;
        let seconds =
            outcome.stderr.split("its clock is ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<i64>().ok());
        ensure!(seconds.is_some_and(|seconds| (seconds - 1000).abs() < 10), "{outcome:#?}");
        ensure!(lab.changes(FORWARD)?.is_empty());
    }
    Ok(())
}

fn answers_that_are_none() -> Result<()> {
    let lab = Lab::new()?;
    let servers: [(Answer, &str); 7] = [
        (|_| Some(framed(b"")), "malformed answer"),
        (|it| Some(framed(&[&unsigned(it)[..], b"more"].concat())), "bytes follow the last record of the answer"),
        (|_| Some(framed(b"garbage, and more of it than a header has")), "belongs to another question"),
        // The header of an answer, and records that are not there.
        (
            |it| {
                Some(framed(&[&it[..2], &[0x84, 0, 0, 1, 255, 255, 0, 0, 0, 0], &[0xc0, 12, 0, 1, 0, 1][..]].concat()))
            },
            "malformed answer",
        ),
        // Names that refer to themselves.
        (
            |it| {
                Some(framed(
                    &[&it[..2], &[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0], &[0xc0, 12, 0, 6, 0, 1, 0xc0, 18][..]].concat(),
                ))
            },
            "malformed answer",
        ),
        // The question itself.
        (|it| Some(framed(it)), "belongs to another question"),
        // Another number.
        (
            |it| Some(framed(&[&[it[0] ^ 1], &it[1..2], &[it[2] | 0x84], &it[3..]].concat())),
            "belongs to another question",
        ),
    ];
    for (n, (server, expected)) in servers.into_iter().enumerate() {
        let at = format!("127.0.1.{}:5300", n + 1);
        answer_with(&lab.netns, &at, server)?;
        lab.files.set(&format!("SERVER={at}"))?;
        lab.run(&["dns", "sync"], VM)?.fails(&[&at, expected])?;
    }
    Ok(())
}

fn answers_that_are_false() -> Result<()> {
    let lab = Lab::new()?;
    // "There is no such name, and its zone is example.org": as a spoofing server would have it, unsigned; signed with the
    // request's own signature; signed with zeros; for another key; and one that says it is truncated.
    let servers: [(Answer, &str); 5] = [
        (|it| Some(framed(&unsigned(it))), "is not signed"),
        (|it| Some(framed(&[&it[..2], &[it[2] | 0x84], &it[3..]].concat())), "is not signed with our key"),
        (
            |it| {
                let mut answer = [&it[..2], &[it[2] | 0x84], &it[3..]].concat();
                let end = answer.len() - 6;
                answer[end - 32..end].fill(0);
                Some(framed(&answer))
            },
            "is not signed with our key",
        ),
        (
            |it| {
                let at = it.windows(5).position(|bytes| bytes == b"\x04ddns")?;
                let mut answer = [&it[..2], &[it[2] | 0x84], &it[3..]].concat();
                answer[at + 1] = b'x';
                Some(framed(&answer))
            },
            "is not signed with our key",
        ),
        (
            |it| {
                let mut answer = unsigned(it);
                answer[2] |= 2;
                Some(framed(&answer))
            },
            "is not signed",
        ),
    ];
    for (n, (server, expected)) in servers.into_iter().enumerate() {
        let at = format!("127.0.2.{}:5300", n + 1);
        answer_with(&lab.netns, &at, server)?;
        lab.files.set(&format!("SERVER={at}"))?;
        lab.run(&["dns", "sync"], VM)?.fails(&[&at, expected])?;
    }
    // Without a key, the one that says it is truncated.
    lab.files.set("AUTHENTICATION_METHOD=plain")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["truncated"])?;
    // One that is the root's: an SOA record of `.` in the authority section.
    answer_with(&lab.netns, "127.0.3.1:5300", |it| {
        let mut answer = unsigned(it);
        answer[9] = 1;
        Some(framed(&[&answer[..], &[0, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22], &[0; 22]].concat()))
    })?;
    lab.files.set("SERVER=127.0.3.1:5300")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["the server has it in the root zone"])?;
    Ok(())
}

/// The answer without the signature: no error, no records.
fn unsigned(request: &[u8]) -> Vec<u8> {
    let question = 12 + request[12..].iter().position(|b| *b == 0).unwrap_or_default() + 5;
    let mut answer = request[..question].to_vec();
    answer[2] |= 0x84;
    answer[6..12].fill(0);
    answer
}

fn unsigned_answers_of_any_length() -> Result<()> {
    let lab = Lab::new()?;
    // A length of more than what comes, and then the end of the connection.
    let netns = &lab.netns;
    let listener = netns.run(|| std::net::TcpListener::bind(FALSE))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 512]);
            let _ = std::io::Write::write_all(&mut stream, &[0xff, 0xff, 0, 0, 0]);
        }
    });
    lab.files.set(&format!("SERVER={FALSE}"))?;
    lab.run(&["dns", "sync"], VM)?.fails(&["closed the connection without a whole answer"])?;
    Ok(())
}

fn nothing_injects_a_record() -> Result<()> {
    let lab = Lab::new()?;
    let evil = "vm1\nupdate add evil.example.org 5 A 192.0.2.99\nsend\n";
    let hook = |name: &str, ip: &str, tags: &str| {
        let host = nix::unistd::gethostname()?;
        let variables = [
            ("GANETI_OP_CODE", "OP_INSTANCE_STARTUP"),
            ("GANETI_INSTANCE_NAME", name),
            ("GANETI_INSTANCE_PRIMARY", &host.to_string_lossy()),
            ("GANETI_INSTANCE_NIC_COUNT", "1"),
            ("GANETI_INSTANCE_NIC0_IP", ip),
            ("GANETI_INSTANCE_NIC0_MAC", "aa:00:00:00:00:01"),
            ("GANETI_INSTANCE_NIC0_NETWORK_TAGS", tags),
        ];
        lab.files.run_with(&lab.netns, &["snf-network-dnshook"], &variables)
    };
    for name in [
        evil,
        "vm1 evil",
        "vm1;evil",
        "vm1.example.org\\000evil",
        "vm1..example.org",
        "*.example.org",
        "évil",
        "-vm",
        "",
    ] {
        let outcome = hook(name, "192.0.2.5", "dns")?;
        ensure!(outcome.code == Some(1) && outcome.stderr.lines().count() == 1, "{name:?}: {outcome:#?}");
    }
    for ip in
        ["192.0.2.5\n192.0.2.6", "192.0.2.5 192.0.2.6", "192.0.2.5/24", "0x7f.1", "192.0.2.5;A 192.0.2.6", "224.0.0.1"]
    {
        hook("vm1", ip, "dns")?.fails(&["IP "])?;
    }
    hook("vm1", "192.0.2.5", "dnsx\tx")?.succeeds()?;
    for setting in [
        "FZONE='example.org\nupdate add evil.example.org'",
        "FZONE='example.org evil'",
        "TTL='300 A 192.0.2.9'",
        "TTL=5m",
        "SERVER='127.0.0.1;evil'",
        "SERVER='127.0.0.1\nevil\"'",
    ] {
        let text = std::fs::read_to_string(lab.files.settings())?;
        lab.files.set(setting)?;
        let outcome = hook("vm1", "192.0.2.5", "dns")?;
        ensure!(outcome.code == Some(1) && outcome.stderr.lines().count() == 1, "{setting:?}: {outcome:#?}");
        std::fs::write(lab.files.settings(), text)?;
    }
    for zone in [FORWARD, REVERSE, CLASSLESS, REVERSE6] {
        ensure!(lab.changes(zone)?.is_empty(), "{zone}: {:?}", lab.changes(zone)?);
    }
    let log = lab.log()?;
    ensure!(!log.lines().any(|line| line.starts_with("update") || line.starts_with("send")), "{log}");
    Ok(())
}

fn bad_input_is_named() -> Result<()> {
    let lab = Lab::new()?;
    for (options, expected) in [
        ("--instance vm_1..x --ip 192.0.2.5", "\"vm_1..x\": expected a host name"),
        ("--instance vm1 --ip 192.0.2", "\"192.0.2\": expected an address"),
        ("--instance vm1 --mac aa --subnet6 2001:db8::/64", "MAC \"aa\""),
        ("--instance vm1 --mac aa:00:00:00:00:01 --subnet6 2001:db8::/60", "expected a /64"),
        ("--instance vm1 --mac aa:00:00:00:00:01", "expected pairs"),
        ("--instance vm1 --colour red", "--colour"),
        ("--ip 192.0.2.5", "--instance is missing"),
    ] {
        lab.run(&["dns", "sync"], options)?.fails(&[expected])?;
    }
    lab.run(&["dns", "burn"], "--instance vm1")?.fails(&["\"burn\""])?;
    lab.run(&["dns"], "")?.fails(&["expected show, sync or remove"])?;
    Ok(())
}
