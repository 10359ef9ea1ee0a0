//! Dynamic DNS against real name servers; `dig` says what they hold.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::nameserver::{
    CHILD, CLASSLESS, CLOSED, FORWARD, Kind, Lab, MORE_KEYS, REVERSE, REVERSE6, generate, own_resolver,
};
use crate::harness::netns::Netns;
use crate::harness::topology::Files;

pub const TESTS: &[Test] = &[
    ("dns::the_records_of_an_instance", the_records_of_an_instance),
    ("dns::the_same_with_knot", the_same_with_knot),
    ("dns::zones_are_asked_for", zones_are_asked_for),
    ("dns::a_zone_that_refuses", a_zone_that_refuses),
    ("dns::records_of_others_stay", records_of_others_stay),
    ("dns::every_form_of_key", every_form_of_key),
    ("dns::a_bad_key_sends_nothing", a_bad_key_sends_nothing),
    ("dns::without_a_key_only_if_asked_for", without_a_key_only_if_asked_for),
    ("dns::a_dry_run_is_a_script_for_nsupdate", a_dry_run_is_a_script_for_nsupdate),
    ("dns::the_server_by_name", the_server_by_name),
    ("dns::several_servers", several_servers),
];

const VM: &str = "--instance vm1 --ip 192.0.2.5 --mac aa:00:00:00:00:01 --subnet6 2001:db8::/64";
const ADDRESS6: &str = "2001:db8::a800:ff:fe00:1";

fn the_records_of_an_instance() -> Result<()> {
    life(&Lab::new()?)
}

fn the_same_with_knot() -> Result<()> {
    let lab = Lab::with(Kind::Knot, Netns::new()?, Files::new()?)?;
    life(&lab)?;
    let outcome = lab.run(&["dns", "sync"], "--instance vm1.closed.example --ip 192.0.2.6")?;
    outcome.fails(&["zone closed.example: refused: 127.0.0.1:53: the server answers BADKEY"])?;
    // The other zones are not held back by one that has not heard of the key.
    let outcome = lab.run(&["dns", "sync"], "--instance vm1.child.example.org --ip 192.0.2.7")?;
    outcome.fails(&["vm1.child.example.org: 127.0.0.1:53: the server answers BADKEY"])?;
    ensure!(lab.dig("-x 192.0.2.7")? == "vm1.child.example.org.");
    Ok(())
}

/// Records come, change, are seen, and go.
fn life(lab: &Lab) -> Result<()> {
    let outcome = lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(
        outcome.stdout.lines().count() == 3 && outcome.stdout.contains("zone example.org: added vm1"),
        "{outcome:#?}"
    );
    ensure!(lab.dig("vm1.example.org A")? == "192.0.2.5");
    ensure!(lab.dig("vm1.example.org AAAA")? == ADDRESS6);
    ensure!(lab.dig("-x 192.0.2.5")? == "vm1.example.org.");
    ensure!(lab.dig(&format!("-x {ADDRESS6}"))? == "vm1.example.org.");
    let ttl = lab.changes(FORWARD)?;
    ensure!(
        ttl == ["vm1.example.org. 300 IN A 192.0.2.5", &format!("vm1.example.org. 300 IN AAAA {ADDRESS6}")],
        "{ttl:?}"
    );

    // Again is fine, and says so.
    let outcome = lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(outcome.stdout.contains("already so") && !outcome.stdout.contains("added"), "{outcome:#?}");

    // Another address instead.
    let moved = VM.replace("192.0.2.5", "192.0.2.200");
    lab.run(&["dns", "sync"], &moved)?.succeeds()?;
    ensure!(lab.dig("vm1.example.org A")? == "192.0.2.200");
    ensure!(lab.dig("-x 192.0.2.5")?.is_empty());
    ensure!(lab.dig(&format!("200.{CLASSLESS} PTR"))? == "vm1.example.org.");
    let shown = lab.run(&["dns", "show"], "--instance vm1")?.succeeds()?.stdout;
    ensure!(shown.lines().count() == 4 && shown.contains("vm1.example.org. A 192.0.2.200\n"), "{shown}");

    // Exactly one, then the rest.
    lab.run(&["dns", "remove"], "--instance vm1 --ip 192.0.2.200")?.succeeds()?;
    ensure!(lab.dig("vm1.example.org A")?.is_empty() && lab.dig("vm1.example.org AAAA")? == ADDRESS6);
    lab.run(&["dns", "remove"], "--instance vm1")?.succeeds()?;
    ensure!(lab.run(&["dns", "show"], "--instance vm1")?.succeeds()?.stdout.is_empty());
    lab.run(&["dns", "show"], "--instance alias")?
        .fails(&["alias.example.org is an alias (CNAME) of ns.example.org"])?;
    lab.run(&["dns", "show"], "--instance vm.elsewhere.test")?
        .fails(&["vm.elsewhere.test: ", "the server answers REFUSED"])?;
    for zone in [FORWARD, REVERSE, CLASSLESS, REVERSE6] {
        ensure!(lab.changes(zone)?.is_empty(), "{zone}: {:?}", lab.changes(zone)?);
    }
    let log = lab.log()?;
    ensure!(log.contains(" dns sync vm1: dns: zone example.org: added vm1.example.org. A 192.0.2.5, "), "{log}");
    Ok(())
}

fn zones_are_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    // In a child zone of the same server, although the parent's encloses it too.
    lab.run(&["dns", "sync"], "--instance vm.child.example.org --ip 192.0.2.6")?.succeeds()?;
    ensure!(lab.changes(CHILD)? == ["vm.child.example.org. 300 IN A 192.0.2.6"] && lab.changes(FORWARD)?.is_empty());
    // Below a delegation to somebody else: nothing of it is written to the parent.
    let outcome = lab.run(&["dns", "sync"], "--instance vm.sub.example.org --ip 192.0.2.7")?.succeeds()?;
    ensure!(outcome.stdout.contains("sub.example.org is delegated to ns.elsewhere.test"), "{outcome:#?}");
    ensure!(lab.changes(FORWARD)?.is_empty());
    // An alias has no addresses of its own.
    let outcome = lab.run(&["dns", "sync"], "--instance alias --ip 192.0.2.8")?;
    outcome.fails(&["alias.example.org is an alias (CNAME) of ns.example.org"])?;
    ensure!(lab.dig("alias.example.org CNAME")? == "ns.example.org." && lab.changes(FORWARD)?.is_empty());
    // In no zone at all.
    let outcome = lab.run(&["dns", "sync"], "--instance vm.elsewhere.test --ip 198.51.100.1")?.succeeds()?;
    ensure!(
        outcome.stdout.starts_with("no zone: refused: vm.elsewhere.test: the server answers REFUSED"),
        "{outcome:#?}"
    );
    Ok(())
}

fn a_zone_that_refuses() -> Result<()> {
    let lab = Lab::new()?;
    let outcome = lab.run(&["dns", "sync"], &format!("--instance vm1.{CLOSED} --ip 192.0.2.6"))?;
    outcome.fails(&["zone closed.example: refused: the server answers REFUSED to the update"])?;
    ensure!(lab.changes(CLOSED)?.is_empty());
    // The other zone is not held back by it.
    ensure!(lab.dig("-x 192.0.2.6")? == "vm1.closed.example.");
    let outcome = lab.run(&["dns", "remove"], &format!("--instance vm.{CLOSED}"))?;
    outcome.fails(&["REFUSED to the update"])?;
    ensure!(lab.dig("vm.closed.example A")? == "192.0.2.66");
    Ok(())
}

fn records_of_others_stay() -> Result<()> {
    let lab = Lab::new()?;
    // 192.0.2.77 was taken's, and vm1 gets it without anybody having told the server that taken lost it.
    lab.run(&["dns", "sync"], "--instance vm1 --ip 192.0.2.77")?.succeeds()?;
    ensure!(lab.dig("-x 192.0.2.77")? == "taken.example.org. vm1.example.org.");
    lab.run(&["dns", "remove"], "--instance vm1")?.succeeds()?;
    ensure!(lab.dig("-x 192.0.2.77")? == "taken.example.org.");
    ensure!(lab.dig("taken.example.org A")? == "192.0.2.77");
    // The addresses of a name go, and nothing else that it has.
    lab.run(&["dns", "remove"], "--instance taken")?.succeeds()?;
    ensure!(lab.dig("-x 192.0.2.77")?.is_empty() && lab.dig("taken.example.org A")?.is_empty());
    ensure!(
        lab.dig("taken.example.org TXT")? == "\"kept\""
            && lab.dig("taken.example.org SSHFP")? == "1 1 1111111111111111111111111111111111111111"
    );
    ensure!(lab.dig("other.example.org CNAME")? == "taken.example.org.");
    Ok(())
}

fn every_form_of_key() -> Result<()> {
    let lab = Lab::new()?;
    let folder = lab.folder.display();
    let number = |algorithm: &str| match algorithm {
        "hmac-sha1" => 161,
        "hmac-sha256" => 163,
        "hmac-sha384" => 164,
        _ => 165,
    };
    let mut files = Vec::new();
    for (name, algorithm) in MORE_KEYS.into_iter().filter(|(name, _)| !["md5", "sha224"].contains(name)) {
        let clause = fs::read_to_string(format!("{folder}/{name}.key"))?;
        let secret = clause.split('"').nth(3).context("a secret")?;
        // As dnssec-keygen wrote them before BIND 9.13.
        let (pair, number) = (format!("{folder}/K{name}.+{}+00001", number(algorithm)), number(algorithm));
        fs::write(format!("{pair}.key"), format!("{name}. IN KEY 512 3 {number} {secret}\n"))?;
        let private = format!("Private-key-format: v1.3\nAlgorithm: {number} (HMAC)\nKey: {secret}\nBits: AAA=\n");
        fs::write(format!("{pair}.private"), private)?;
        let plain = format!("{folder}/{name}.conf");
        fs::write(
            &plain,
            format!("# a comment\nkey {name}. {{ secret {secret}; algorithm \"{}\"; }};", algorithm.to_uppercase()),
        )?;
        files.extend([format!("{folder}/{name}.key"), plain, format!("{pair}.key"), format!("{pair}.private"), pair]);
    }
    ensure!(files.len() == 20);
    for (n, file) in files.iter().enumerate() {
        lab.files.set(&format!("KEYFILE={file}"))?;
        lab.run(&["dns", "sync"], &format!("--instance key{n} --ip 192.0.2.{}", n + 1))?.succeeds()?;
    }
    ensure!(lab.changes(FORWARD)?.len() == files.len());
    let log = fs::read_to_string(lab.folder.join("named.log"))?;
    for (name, _) in MORE_KEYS.into_iter().filter(|(name, _)| !["md5", "sha224"].contains(name)) {
        ensure!(
            log.matches(&format!("/key {name}: updating zone 'example.org/IN': adding")).count() == 5,
            "{name}: {log}"
        );
    }
    // What nsupdate takes, we take: the pair is one that it can read.
    let pair = files.iter().find(|file| file.ends_with(".private")).context("a pair")?;
    lab.netns.fed(
        Command::new("nsupdate").args(["-k", pair]),
        "server 127.0.0.1\nupdate add nsupdate.example.org 5 A 192.0.2.1\nsend\n",
    )?;
    ensure!(lab.dig("nsupdate.example.org A")? == "192.0.2.1");
    Ok(())
}

fn a_bad_key_sends_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let folder = lab.folder.display().to_string();
    let path = |name: &str| format!("{folder}/{name}");
    let good = fs::read_to_string(&lab.key)?;
    fs::write(path("cut.key"), &good[..good.len() / 2])?;
    fs::write(path("empty.key"), "")?;
    fs::write(path("two.key"), good.repeat(2))?;
    fs::write(path("binary.key"), [0xff; 100])?;
    fs::write(path("alone.private"), "Private-key-format: v1.3\n")?;
    fs::write(path("other.key"), generate("hmac-sha256", "nobody")?)?;
    fs::write(path("wrong.key"), generate("hmac-sha256", "ddns")?)?;
    for (file, expected) in [
        (path("missing.key"), "No such file"),
        (folder.clone(), "expected a regular file"),
        (path("cut.key"), "expected key \"NAME\""),
        (path("empty.key"), "expected key \"NAME\""),
        (path("two.key"), "expected key \"NAME\""),
        (path("binary.key"), "UTF-8"),
        (path("alone.private"), "expected key \"NAME\""),
        (path("md5.key"), "algorithm \"hmac-md5\": expected hmac-sha1"),
        (path("sha224.key"), "algorithm \"hmac-sha224\": expected hmac-sha1"),
        (path("other.key"), "BADKEY: it has no key \"nobody\""),
        (path("wrong.key"), "BADSIG: its key \"ddns\" has another secret"),
    ] {
        lab.files.set(&format!("KEYFILE={file}"))?;
        lab.run(&["dns", "sync"], VM)?.fails(&[expected])?;
    }
    lab.files.set("AUTHENTICATION_METHOD=kerberos")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["AUTHENTICATION_METHOD \"kerberos\": not built in"])?;
    lab.files.set("AUTHENTICATION_METHOD=bind9\nKEYFILE=")?;
    // The server takes unsigned updates too, so one would have succeeded.
    ensure!(!fs::read_to_string(lab.folder.join("named.log"))?.contains("updating zone"));
    Ok(())
}

fn without_a_key_only_if_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    let text = fs::read_to_string(lab.files.settings())?;
    let without: Vec<_> = text.lines().filter(|line| !line.starts_with("KEYFILE")).collect();
    fs::write(lab.files.settings(), without.join("\n") + "\n")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["dynamic DNS is off"])?;
    lab.files.set("AUTHENTICATION_METHOD=bind9")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["KEYFILE is not set"])?;
    ensure!(lab.changes(FORWARD)?.is_empty());
    lab.files.set("AUTHENTICATION_METHOD=plain")?;
    lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(lab.changes(FORWARD)?.len() == 2);
    Ok(())
}

fn a_dry_run_is_a_script_for_nsupdate() -> Result<()> {
    let lab = Lab::new()?;
    lab.run(&["dns", "sync"], "--instance vm1 --ip 192.0.2.9 --ip 192.0.2.200")?.succeeds()?;
    let before = lab.changes(FORWARD)?;
    let script = lab.run(&["dns", "sync"], &format!("{VM} --dry-run"))?.succeeds()?.stdout;
    ensure!(lab.changes(FORWARD)? == before);
    lab.netns.fed(Command::new("nsupdate").arg("-k").arg(&lab.key), &script).with_context(|| script.clone())?;
    let by_nsupdate = [FORWARD, REVERSE, CLASSLESS, REVERSE6].map(|zone| lab.changes(zone).unwrap_or_default());
    // And the program finds nothing left to do.
    let outcome = lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(!outcome.stdout.contains("added") && !outcome.stdout.contains("removed"), "{script}{outcome:#?}");
    ensure!(by_nsupdate.concat().len() == 4, "{by_nsupdate:?}");
    Ok(())
}

fn the_server_by_name() -> Result<()> {
    own_resolver()?;
    let lab = Lab::new()?;
    // From /etc/hosts; by the search list and the second name server, the first being down; in full; an alias; by an answer
    // that fits in no datagram.
    for server in ["ns.hosts.test", "ns", "ns.example.org", "ns.example.org. 53", "alias.example.org", "many"] {
        lab.files.set(&format!("SERVER='{server}'"))?;
        lab.run(&["dns", "sync"], VM)?.succeeds()?;
        lab.run(&["dns", "remove"], "--instance vm1")?.succeeds()?;
    }
    lab.files.set("SERVER=nobody.example.org")?;
    lab.run(&["dns", "sync"], VM)?.fails(&["nobody.example.org:53: address of nobody.example.org: no such host"])?;
    Ok(())
}

fn several_servers() -> Result<()> {
    let lab = Lab::new()?;
    lab.files.set("SERVER='127.0.0.3 127.0.0.2:5353 127.0.0.1'")?;
    let outcome = lab.run(&["dns", "sync"], VM)?.succeeds()?;
    ensure!(outcome.stdout.contains("added"), "{outcome:#?}");
    lab.files.set("SERVER='127.0.0.3 127.0.0.2:5353'")?;
    let refused = "Connection refused";
    lab.run(&["dns", "sync"], VM)?.fails(&[
        "127.0.0.3:53: connect: ",
        refused,
        "; 127.0.0.2:5353: connect: ",
        refused,
    ])?;
    Ok(())
}
