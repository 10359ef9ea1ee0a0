//! Settings files and what they become.

use std::time::Duration;

use super::*;
use crate::dns::Server;

fn parse(text: &str) -> Result<(Settings, Vec<String>)> {
    Settings::parse(text.as_bytes(), "FILE")
}

fn settings(text: &str) -> Settings {
    let (settings, warnings) = parse(text).unwrap_or_else(|e| panic!("{text:?}: {e:#}"));
    assert_eq!(warnings, Vec::<String>::new());
    settings
}

#[test]
fn an_empty_file_means_the_documented_defaults() {
    let found = settings("");
    assert_eq!(found, Settings::default());
    assert_eq!(found.state_dir, Path::new("/var/lib/snf-network"));
    assert_eq!(found.logfile, Path::new("/var/log/ganeti/snf-network.log"));
    assert_eq!(found.ifup_extra_script, None);
    assert_eq!(found.mac_mask.to_string(), "ff:ff:f0:00:00:00");
    assert_eq!(found.tap_constant_mac.to_string(), "cc:47:52:4e:45:54");
    assert_eq!(found.nfdhcpd_state_dir, Path::new("/var/lib/nfdhcpd"));
    assert_eq!(found.ganeti_nic_dir, Path::new("/var/run/ganeti/xen-hypervisor/nic"));
    assert!(!found.ipspoof);
    assert_eq!((found.routing, found.routing_mark_mask.to_string().as_str()), (Routing::Mark, "0xfff00000"));
    let tags = Setup::ALL.map(|setup| found.tag(setup));
    let defaults = ["ip-less-routed", "private-filtered", "nfdhcpd", "masq", "dns", "bridged", "public"];
    assert_eq!((&tags[..7], tags[7]), (&defaults[..], "strict-filtered"));
    assert_eq!((found.dns.authentication, found.dns.servers.len(), found.dns.timeout.as_secs()), (None, 0, 10));
    assert_eq!(found.dns.ttl, 300);
    assert_eq!(found.dns.kerberos_keytab, Path::new("/etc/krb5.keytab"));
}

#[test]
fn every_key_is_taken_over() {
    let found = settings(
        "BRIDGED_TAG=\nSTATE_DIR=/s\nLOGFILE=$STATE_DIR/log\nIFUP_EXTRA_SCRIPT='/x y'\nMAC_MASK=ff:ff:ff:0:0:0\n",
    );
    assert_eq!(found.logfile, Path::new("/s/log"));
    assert_eq!(found.ifup_extra_script.as_deref(), Some(Path::new("/x y")));
    assert_eq!(found.mac_mask.to_string(), "ff:ff:ff:00:00:00");
    assert_eq!(found.tag(Setup::Bridged), "bridged", "an empty value leaves the default");

    let found = settings(
        "TAP_CONSTANT_MAC=2:0:0:0:0:1 # ours\nNFDHCPD_STATE_DIR=/n\nGANETI_NIC_DIR=/g\nIPSPOOF=no\nOVSDB_SOCKET=/o\n\
         NFDHCPD_STATE_EXTRA='MTU=1400\nPRIVATE=1\n'\nDNS_TAG=ddns\nPUBLIC_TAG=π:*/x\nSTRICT_FILTERED_TAG=strict\n",
    );
    assert_eq!(found.tap_constant_mac.to_string(), "02:00:00:00:00:01");
    assert_eq!(found.nfdhcpd_state_dir, Path::new("/n"));
    assert_eq!(found.ganeti_nic_dir, Path::new("/g"));
    assert_eq!(found.ovsdb_socket, Path::new("/o"));
    assert!(found.ipspoof, "any value sets it");
    assert_eq!(found.nfdhcpd_state_extra.as_deref(), Some("MTU=1400\nPRIVATE=1"));
    assert_eq!((found.tag(Setup::Dns), found.tag(Setup::Public)), ("ddns", "π:*/x"));
    assert_eq!(found.tag(Setup::StrictFiltered), "strict");
    let found = settings("GUEST_LINK_LOCAL=eui64\nROUTER_LINK_LOCAL='fe80::2:1  fe80::1:1 fe80::2:1'\n");
    assert!(found.eui64_only);
    let routers = ["fe80::1:1", "fe80::2:1"].map(|it| it.parse::<Ipv6Addr>().expect("an address"));
    assert_eq!(found.router_link_local, routers);
    let found = settings("ROUTING=mark\nROUTING_MARK_MASK=0xff00\n");
    assert_eq!(found.mark(100).map(|it| it.to_string()).as_deref(), Some("0x6400/0xff00"));
    assert_eq!(found.mark(256), None, "its number has nine bits");
    assert_eq!(found.mark(254), None, "main");
    let selector = |text: &str| settings(text).fwmark(100).map(|it| it.selector().to_string());
    assert_eq!(selector("ROUTING_MARK_MASK=0xff00\n").as_deref(), Some("fwmark 0x6400/0xff00"));
    assert_eq!(selector("ROUTING=rule\nROUTING_MARK_MASK=0xff00\n").as_deref(), Some("iif lo fwmark 0x6400/0xff00"));
    assert!(!settings("IPSPOOF=").ipspoof);
}

#[test]
fn every_dns_key_is_taken_over() {
    let found = settings(
        "AUTHENTICATION_METHOD=kerberos\nSERVER='ns.example.org 5353'\nFZONE=vm.example.org.\nTTL=0\nKEYFILE=/k\nDNS_TIMEOUT=3\n\
         KERBEROS_PRINCIPAL=host/a@B\nKERBEROS_KEYTAB=/t\nKERBEROS_TICKET=/c\nKERBEROS_KSTART_ARGS='-H 1'\n",
    );
    let expected = DnsSettings {
        authentication: Some(Authentication::Kerberos),
        servers: Server::parse_list("ns.example.org:5353").expect("a server"),
        fzone: Some("vm.example.org".into()),
        ttl: 0,
        keyfile: Some("/k".into()),
        timeout: Duration::from_secs(3),
        kerberos_principal: Some("host/a@B".into()),
        kerberos_keytab: "/t".into(),
        kerberos_ticket: Some("/c".into()),
        kerberos_kstart_args: Some("-H 1".into()),
    };
    assert_eq!(found.dns, expected);
    assert_eq!(settings("SERVER='2001:db8::1 a'").dns.servers, Server::parse_list("2001:db8::1 a").expect("two"));
}

#[test]
fn unknown_keys_are_warned_of_once_and_former_tool_paths_are_not() {
    let (found, warnings) = parse("COLOUR=red\nCOLOUR=blue\nSERVICENAME=x\nEBTABLES='/sbin/x /y'\n").expect("warnings");
    assert_eq!(found, Settings::default());
    assert_eq!(warnings, ["FILE:2: COLOUR is no setting known here", "FILE:3: SERVICENAME is no setting known here"]);
    settings(&IGNORED.map(|key| format!("{key}=x\n")).concat());
}

#[test]
fn the_dns_file_overrides_dns_settings_only() {
    let main = (b"SERVER=a\nFZONE=b\nTTL=5\nSTATE_DIR=/s\n", "MAIN");
    let dns = b"SERVER=c\nFZONE=\n: ${TTL:=9} ${KEYFILE:=$STATE_DIR/k}\nLOGFILE=/l\nSTATE_DIR=/other\n";
    let (found, warnings) = Settings::merge(main, Some((dns, "DNS"))).expect("settings");
    assert_eq!((found.dns.servers[0].to_string().as_str(), found.dns.fzone, found.dns.ttl), ("c:53", None, 5));
    assert_eq!(found.dns.keyfile.as_deref(), Some(Path::new("/s/k")));
    assert_eq!(found.state_dir, Path::new("/s"));
    assert_eq!(found.logfile, Settings::default().logfile);
    assert_eq!(warnings, ["DNS:5: STATE_DIR is no DNS setting", "DNS:4: LOGFILE is no DNS setting"]);
}

#[test]
fn bad_values_are_named_with_their_place_and_what_was_expected() {
    const MASK: &str = "expected a MAC's leading bits as a mask, such as ff:ff:f0:00:00:00";
    const PATH: &str = "expected an absolute path";
    const TAG: &str = "expected a tag: letters, digits, or any of _ . + * / : @ -";
    const SERVER: &str = "expected addresses or host names between spaces, each with a port where it is not 53, such as \
                          192.0.2.53 ns2.example.org:5353 [2001:db8::53]:5353";
    const LINES: &str = "expected lines KEY=value with one = each";
    for (text, expected) in [
        ("STATE_DIR=var", format!("FILE:1: STATE_DIR \"var\": {PATH}")),
        ("LOGFILE='/a\nb'", format!("FILE:1: LOGFILE \"/a\\nb\": {PATH}")),
        ("IFUP_EXTRA_SCRIPT=x", format!("FILE:1: IFUP_EXTRA_SCRIPT \"x\": {PATH}")),
        ("NFDHCPD_STATE_DIR=x", format!("FILE:1: NFDHCPD_STATE_DIR \"x\": {PATH}")),
        ("GANETI_NIC_DIR=x", format!("FILE:1: GANETI_NIC_DIR \"x\": {PATH}")),
        ("OVSDB_SOCKET=x", format!("FILE:1: OVSDB_SOCKET \"x\": {PATH}")),
        ("\n\nMAC_MASK=ff:0:ff:0:0:0", format!("FILE:3: MAC_MASK \"ff:0:ff:0:0:0\": {MASK}")),
        ("MAC_MASK=0:0:0:0:0:0", format!("FILE:1: MAC_MASK \"0:0:0:0:0:0\": {MASK}")),
        (
            "TAP_CONSTANT_MAC=cc",
            "FILE:1: TAP_CONSTANT_MAC \"cc\": expected six octets such as aa:00:00:12:34:56".to_owned(),
        ),
        (
            "TAP_CONSTANT_MAC=01:0:0:0:0:0",
            "FILE:1: TAP_CONSTANT_MAC \"01:0:0:0:0:0\": expected a unicast MAC".to_owned(),
        ),
        ("GUEST_LINK_LOCAL=stable", "FILE:1: GUEST_LINK_LOCAL \"stable\": expected any or eui64".to_owned()),
        (
            "ROUTER_LINK_LOCAL='fe80::1 2001:db8::1'",
            "FILE:1: ROUTER_LINK_LOCAL \"fe80::1 2001:db8::1\": expected IPv6 addresses in fe80::/64, between spaces"
                .to_owned(),
        ),
        ("ROUTING=vrf", "FILE:1: ROUTING \"vrf\": expected rule or mark".to_owned()),
        (
            "ROUTING_MARK_MASK=ff",
            "FILE:1: ROUTING_MARK_MASK \"ff\": expected a number of 32 bits such as 0xfff00000, not 0".to_owned(),
        ),
        ("NFDHCPD_STATE_EXTRA=a", format!("FILE:1: NFDHCPD_STATE_EXTRA \"a\": {LINES}")),
        ("NFDHCPD_STATE_EXTRA=A=b=c", format!("FILE:1: NFDHCPD_STATE_EXTRA \"A=b=c\": {LINES}")),
        ("DNS_TAG='a b'", format!("FILE:1: DNS_TAG \"a b\": {TAG}")),
        (
            "AUTHENTICATION_METHOD=md5",
            "FILE:1: AUTHENTICATION_METHOD \"md5\": expected plain, bind9 or kerberos".into(),
        ),
        ("SERVER='a b;c'", format!("FILE:1: SERVER \"a b;c\": \"b;c\": {SERVER}")),
        ("SERVER='a 0'", format!("FILE:1: SERVER \"a 0\": port \"0\": {SERVER}")),
        ("SERVER='a 1 2'", format!("FILE:1: SERVER \"a 1 2\": \"2\": {SERVER}")),
        ("FZONE=a..b", "FILE:1: FZONE \"a..b\": expected a domain such as vm.example.org".into()),
        ("TTL=-1", "FILE:1: TTL \"-1\": expected seconds, 0 to 2147483647".into()),
        ("TTL=2147483648", "FILE:1: TTL \"2147483648\": expected seconds, 0 to 2147483647".into()),
        ("DNS_TIMEOUT=0", "FILE:1: DNS_TIMEOUT \"0\": expected seconds, 1 to 3600".into()),
        ("KEYFILE=k", format!("FILE:1: KEYFILE \"k\": {PATH}")),
        ("KERBEROS_KEYTAB=k", format!("FILE:1: KERBEROS_KEYTAB \"k\": {PATH}")),
        ("KERBEROS_TICKET=k", format!("FILE:1: KERBEROS_TICKET \"k\": {PATH}")),
        ("KERBEROS_PRINCIPAL='a\tb'", "FILE:1: KERBEROS_PRINCIPAL \"a\\tb\": expected printable text".into()),
        ("KERBEROS_KSTART_ARGS='a\nb'", "FILE:1: KERBEROS_KSTART_ARGS \"a\\nb\": expected printable text".into()),
    ] {
        let error = parse(text).map_or_else(|e| format!("{e:#}"), |found| format!("{found:?}"));
        assert_eq!(error, expected, "{text:?}");
    }
}

#[test]
fn a_file_of_any_name_is_named_on_one_line() {
    let error = Settings::parse(b"x", "a\nb").expect_err("a command");
    assert!(format!("{error:#}").starts_with("a\\nb:1: \"x\": commands are never run"), "{error:#}");
}

#[test]
fn the_named_file_or_else_the_first_there_is_is_read() {
    let folder = std::env::temp_dir().join(format!("snf-network-settings-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    for (name, text) in [("old", "TTL=1\nSTATE_DIR=/old"), ("dns", "TTL=2"), ("named", "FZONE=c")] {
        std::fs::write(path(name), text).expect("a file");
    }
    std::fs::write(path("large"), vec![b'#'; 65_537]).expect("a file");

    let load = |other: Option<&str>, files: &[&str], dns: &str| {
        Settings::load_from(other.map(|name| folder.join(name)).as_deref(), files, dns).map(|(settings, _)| settings)
    };
    let files = [path("new"), path("old"), path("large")];
    let files = files.each_ref().map(String::as_str);
    let found = load(None, &files, &path("dns")).expect("settings");
    assert_eq!((found.dns.ttl, found.state_dir.as_path()), (2, Path::new("/old")));
    assert_eq!(load(None, &files, "/nonexistent").expect("settings").dns.ttl, 1);
    assert_eq!(load(None, &["/nonexistent"], "/nonexistent").expect("settings"), Settings::default());
    let found = load(Some("named"), &files, &path("dns")).expect("settings");
    assert_eq!((found.dns.ttl, found.dns.fzone.as_deref()), (300, Some("c")));

    let error = format!("{:#}", load(Some("/nonexistent"), &files, "").expect_err("missing"));
    assert_eq!(error, "SNF_NETWORK_DEFAULTS \"/nonexistent\": no such file, expected a settings file");
    let error = format!("{:#}", load(None, &files[2..], "").expect_err("large"));
    assert_eq!(error, format!("{}: expected a file of at most 65536 bytes", files[2]));
    std::fs::remove_dir_all(folder).expect("our own folder");
}

#[test]
fn the_settings_file_has_every_key_with_its_default() {
    let file = settings_file();
    assert_eq!(settings(&file), Settings::default(), "nothing is set in it");
    // What has a default is the default, line for line; what has none is an example that is understood.
    let uncommented = |wanted: fn(&Key) -> bool| -> String {
        let line = |key: &Key| file.lines().find_map(|line| line.strip_prefix('#').filter(|it| assigns(it, key.name)));
        KEYS.iter().filter(|key| wanted(key)).map(|key| format!("{}\n", line(key).expect(key.name))).collect()
    };
    let defaults = uncommented(|key| matches!(key.preset, Preset::Value(_)));
    assert_eq!(settings(&defaults), Settings::default());
    let examples = uncommented(|key| matches!(key.preset, Preset::Unset(_)));
    for line in examples.lines() {
        assert_ne!(settings(line), Settings::default(), "{line}");
    }
    assert_eq!(file.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")).count(), KEYS.len());
}

fn assigns(line: &str, key: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| name == key)
}

#[test]
fn the_documentation_has_every_key() {
    let page = include_str!("../../docs/commands.md");
    for key in KEYS {
        let prefix = key.name.split_inclusive('_').next().unwrap_or_default();
        assert!(page.contains(key.name) || page.contains(&format!("{prefix}*")), "{} in docs/commands.md", key.name);
    }
}
