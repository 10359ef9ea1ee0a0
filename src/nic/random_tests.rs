//! Thousands of random settings files and environments: never a panic, never an error of more than one printable line,
//! and no NIC that breaks its own promises. The numbers are the same at every run.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::environment::Unset;
use crate::routing_tables;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Text of any characters, many of them troublesome; now and then bytes that are none.
    fn noise(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..self.below(12) {
            match self.below(8) {
                0 => text.push(self.next().to_le_bytes()[0] & 0x1f),
                1 => {
                    text.extend(char::from_u32(self.below(0x11_0000) as u32).unwrap_or('\u{202e}').to_string().bytes())
                }
                2 => text.push(self.next().to_le_bytes()[0]),
                _ => text.extend(self.of(SPECIAL).bytes()),
            }
        }
        if self.one_in(50) { text.repeat(200) } else { text }
    }

    /// `text` with a few of its bytes deleted, doubled, replaced, or noise put between.
    fn mutate(&mut self, text: &str) -> Vec<u8> {
        let mut text = text.as_bytes().to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(text.len() + 1);
            match self.below(4) {
                0 if at < text.len() => drop(text.remove(at)),
                1 if at < text.len() => text.insert(at, text[at]),
                2 if at < text.len() => text[at] = self.of(SPECIAL).as_bytes()[0],
                _ => drop(text.splice(at..at, self.noise())),
            }
        }
        text
    }
}

const SPECIAL: &[&str] = &[
    "$",
    "${",
    "}",
    "$(",
    ")",
    "`",
    "\"",
    "'",
    "\\",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    "#",
    "=",
    ":",
    ":-",
    ":=",
    ";",
    "|",
    "&",
    "*",
    "/",
    "..",
    "-",
    "+",
    "0",
    "1",
    "9",
    "255",
    "0x",
    "a",
    "A",
    "π",
    "\u{202e}",
    "\u{2028}",
    "\u{1b}[31m",
    "\u{85}",
];

/// Variables and values that are right, at least with some others.
const VARIABLES: &[(&str, &[&str])] = &[
    ("INTERFACE", &["tap0", "vif1.0", "gnt.com.0"]),
    ("INTERFACE_INDEX", &["0", "7"]),
    ("INTERFACE_NAME", &["front", "näme"]),
    ("INTERFACE_UUID", &["6f1d2a3e-0000-4000-8000-00000000beef"]),
    ("INSTANCE", &["vm1", "vm1.example.org"]),
    ("MAC", &["aa:00:00:12:34:56", "AA:0:0:0:0:1"]),
    ("MODE", &["routed", "routed", "routed", "bridged", "openvswitch", "ext"]),
    ("LINK", &["100", "0x64", "main", "br0", "254"]),
    ("VLAN", &["", "5", ".5", ":5:6", ".5:6"]),
    ("BRIDGE", &["", "br0"]),
    ("IP", &["", "192.0.2.10", "192.0.2.0", "2001:db8::7", "10.0.0.1"]),
    ("TAGS", &["", "protected", "disable_ipv4", "disable_ipv6", "synnefo:network:0:limited x*"]),
    ("MIGRATION_PHASE", &["", "pre", "post"]),
    ("NETWORK_NAME", &["net"]),
    ("NETWORK_UUID", &["aa-bb"]),
    ("NETWORK_TAGS", &["", "ip-less-routed nfdhcpd", "ip-less-routed", "private-filtered", "dns public", "masq"]),
    ("NETWORK_SUBNET", &["", "192.0.2.0/24", "192.0.2.0/31", "192.0.2.10/32", "10.0.0.0/8"]),
    ("NETWORK_GATEWAY", &["", "192.0.2.1", "10.0.0.1"]),
    ("NETWORK_SUBNET6", &["", "2001:db8::/64", "2001:db8::/80"]),
    ("NETWORK_GATEWAY6", &["", "2001:db8::1", "fe80::1"]),
    ("NETWORK_MAC_PREFIX", &["", "aa:00:01"]),
];

const FILE: &str = "# settings\nSTATE_DIR=/var/lib/x\nexport LOGFILE=\"$STATE_DIR/log\"\nMAC_MASK=ff:ff:f0:0:0:0 # mask\n\
    : ${TAP_CONSTANT_MAC:=cc:47:52:4e:45:54}\n: \"${FZONE:=vm.example.org}\"\nSERVER='ns.example.org'\nTTL=300\n\
    NFDHCPD_STATE_EXTRA='MTU=1400\nPRIVATE=1'\nDNS_TAG=d\\ns\nIPSPOOF=\nKEYFILE=${STATE_DIR:-/x}/k\nCOLOUR=red\n\
    KERBEROS_KSTART_ARGS=\"-H 1 -l 1h\" \\\n  AUTHENTICATION_METHOD=bind9\n";

fn check_error(error: &Error, seen: &dyn std::fmt::Debug) {
    let line = format!("{error:#}");
    assert!(is_printable(&line) && !line.is_empty() && line.len() < 2000, "{line:?} of {seen:?}");
    assert!(line.contains("expected"), "{line} of {seen:?}");
}

#[test]
fn settings_files() {
    let mut random = Random(0x5eed_0001);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let text = if random.one_in(4) { random.noise() } else { random.mutate(FILE) };
        match Settings::parse(&text, "FILE") {
            Err(error) => check_error(&error, &String::from_utf8_lossy(&text)),
            Ok((settings, warnings)) => {
                accepted += 1;
                assert!(warnings.iter().all(|warning| is_printable(warning)), "{warnings:?}");
                let paths = [&settings.state_dir, &settings.logfile, &settings.nfdhcpd_state_dir];
                assert!(paths.iter().all(|path| path.is_absolute()), "{settings:?}");
                assert!(settings.tap_constant_mac.is_unicast() && settings.mac_mask.octets()[0] & 0x80 != 0);
                assert!(Setup::ALL.iter().all(|setup| !settings.tag(*setup).contains(char::is_whitespace)));
            }
        }
    }
    assert!((1000..19_000).contains(&accepted), "{accepted} of 20000 accepted: both ways must be tried");
}

#[test]
fn environments() {
    let mut random = Random(0x5eed_0002);
    let settings = Settings::default();
    let mut accepted = 0;
    for round in 0..40_000 {
        // Of every tenth environment each value is bad with some likelihood, of the others few or none.
        let badness = if round % 10 == 0 { 4 } else { 60 };
        let mut values = Vec::new();
        for (name, choices) in VARIABLES {
            let good = random.of(choices);
            let value = match random.below(badness * 2) {
                0 => random.noise(),
                1 => random.mutate(good),
                _ => good.as_bytes().to_vec(),
            };
            if !random.one_in(100) {
                values.push((*name, OsString::from_vec(value)));
            }
        }
        let value = |name: &str| values.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let unset = if random.one_in(2) { Unset::Empty } else { Unset::EmptyOrNone };
        let nic = RawNic::from_variables(unset, value).and_then(|mut raw| {
            let argument = OsString::from_vec(random.noise());
            raw.complete_interface(Some(&argument))?;
            let nic = Nic::new(&raw, &settings, routing_tables::resolve)?;
            assert_eq!(Identity::new(&raw)?.interface, nic.interface);
            Ok(nic)
        });
        match nic {
            Err(error) => check_error(&error, &values),
            Ok(nic) => {
                accepted += 1;
                check_nic(&nic);
            }
        }
    }
    assert!((5000..35_000).contains(&accepted), "{accepted} of 40000 accepted: both ways must be tried");
}

fn check_nic(nic: &Nic) {
    assert!(nic.mac.is_unicast(), "{nic:?}");
    assert_eq!(nic.interface.as_str().parse::<IfName>().ok().as_ref(), Some(&nic.interface));
    assert!(is_domain_name(&nic.instance), "{nic:?}");
    let texts = [nic.uuid.as_deref(), Some(nic.tags.as_str())];
    assert!(texts.iter().flatten().all(|text| is_printable(text)), "{nic:?}");
    assert!(nic.tags.is_ascii() && !nic.tags.contains(['$', '`', '"', '\'', '\\', '=', ';']), "{nic:?}");
    match &nic.mode {
        Mode::Routed { table } => assert!(*table != 0 && *table != 255, "{nic:?}"),
        Mode::Bridged { bridge, vlan } | Mode::OpenVswitch { bridge, vlan } => {
            assert_ne!(*bridge, nic.interface);
            for number in vlan.iter().flat_map(|vlan| vlan.tagged.iter().chain(&vlan.untagged)) {
                assert!((1..=4094).contains(number), "{nic:?}");
            }
        }
        Mode::Ext => {}
    }
    for family in Family::BOTH {
        let Some(Endpoint { address, subnet, gateway }) = nic.endpoint(family) else { continue };
        assert_eq!(Family::of(*address), family, "{nic:?}");
        assert!(!address.is_multicast() && !address.is_loopback() && !address.is_unspecified(), "{nic:?}");
        assert_ne!(Some(*address), *gateway, "{nic:?}");
        if let Some(subnet) = subnet {
            assert_eq!(subnet.trunc(), *subnet, "{nic:?}");
            assert!(subnet.contains(address), "{nic:?}");
        }
        assert!(gateway.is_none_or(|gateway| Family::of(gateway) == family), "{nic:?}");
    }
    if nic.has(Setup::IpLessRouted) {
        assert!(matches!(nic.mode, Mode::Routed { .. }), "{nic:?}");
        assert!(Family::BOTH.iter().any(|family| nic.endpoint(*family).is_some()), "{nic:?}");
    }
}
