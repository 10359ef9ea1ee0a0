//! `arpsend`, `ndsend` and `mac2eui64`, with the arguments of the tools they replace.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;

use crate::addr::{Family, IfName, Mac, parse_net};
use crate::announce::{Announcement, INTERVAL, Round};
use crate::kernel::address::{find, usable_link_local};
use crate::kernel::confine::{Reach, confine};
use crate::kernel::packet::{AdvertisementSocket, PacketSocket};
use crate::printable::quoted;

/// How `arpsend` is called.
const ARPSEND: &str = "arpsend -U [-c COUNT] -i ADDRESS DEVICE";
/// How `ndsend` is called.
const NDSEND: &str = "ndsend [-c COUNT] ADDRESS DEVICE";
/// How `mac2eui64` is called.
const MAC2EUI64: &str = "mac2eui64 [-c COUNT] MAC PREFIX";

/// How long `ndsend` waits for a link-local address that is tentative: duplicate address detection takes a second
/// and a random delay of up to another (RFC 4862, section 5.4.2).
const TENTATIVE: Duration = Duration::from_secs(3);

/// Announces an IPv4 address by gratuitous ARP, on a device with or without an address. Of the old tool's modes only
/// this one (`-U`) is there.
///
/// # Errors
/// One line for wrong arguments; no such device; a device that is down; a frame the kernel does not take.
pub fn arpsend(args: &[OsString]) -> Result<()> {
    let arguments = Arguments::parse(args, "Uic", ARPSEND)?;
    ensure!(arguments.update, "-U is missing (usage: {ARPSEND})");
    let address = arguments.address.with_context(|| format!("-i ADDRESS is missing (usage: {ARPSEND})"))?;
    let [device] = arguments.operands(ARPSEND)?;
    announce(address, Family::V4, device, arguments.count)
}

/// Announces an IPv6 address by unsolicited neighbour advertisements. Waits for the device's link-local address while
/// that is tentative.
///
/// # Errors
/// As [`arpsend`], and a device without a usable link-local address.
pub fn ndsend(args: &[OsString]) -> Result<()> {
    let arguments = Arguments::parse(args, "c", NDSEND)?;
    let [address, device] = arguments.operands(NDSEND)?;
    announce(address, Family::V6, device, arguments.count)
}

/// Prints the modified EUI-64 address of a MAC in a prefix, without the prefix length.
///
/// # Errors
/// One line for wrong arguments: no MAC, no IPv6 prefix, or one that is no /64.
pub fn mac2eui64(args: &[OsString]) -> Result<()> {
    // -c is taken as by its kin, though there is nothing to repeat.
    let arguments = Arguments::parse(args, "c", MAC2EUI64)?;
    let [mac, prefix] = arguments.operands(MAC2EUI64)?;
    let address = eui64(mac, prefix)?;
    writeln!(std::io::stdout(), "{address}").context("standard output")
}

pub(super) fn eui64(mac: &str, prefix: &str) -> Result<IpAddr> {
    let mac: Mac = mac.parse().with_context(|| format!("MAC {}", quoted(mac)))?;
    match parse_net(prefix).with_context(|| format!("PREFIX {}", quoted(prefix)))? {
        IpNet::V6(net) => Ok(mac.eui64(net).context("PREFIX")?.into()),
        IpNet::V4(net) => bail!("PREFIX {net} is IPv4, expected an IPv6 /64"),
    }
}

/// What getopt would make of the arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments<'a> {
    /// `-U`.
    pub(super) update: bool,
    /// `-i`.
    pub(super) address: Option<&'a str>,
    /// `-c`: rounds.
    pub(super) count: u32,
    /// What is no option, in order.
    pub(super) operands: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    /// Options of one letter, those in `allowed`, before, between or behind the operands; letters may be combined, and
    /// a value follows at once or as the next argument (`-Uc1`, `-U -c 1`).
    pub(super) fn parse(args: &'a [OsString], allowed: &str, usage: &str) -> Result<Self> {
        let mut parsed = Self { update: false, address: None, count: 1, operands: Vec::new() };
        let mut args = args.iter();
        let mut only_operands = false;
        while let Some(arg) = args.next() {
            let arg = arg.to_str().with_context(|| {
                format!("argument {} is not UTF-8 (usage: {usage})", quoted(&arg.to_string_lossy()))
            })?;
            let letters = match arg.strip_prefix('-') {
                Some("-") => {
                    only_operands = true;
                    continue;
                }
                Some(letters) if !only_operands && !letters.is_empty() => letters,
                _ => {
                    parsed.operands.push(arg);
                    continue;
                }
            };
            for (at, letter) in letters.char_indices() {
                ensure!(allowed.contains(letter), "unknown option -{} (usage: {usage})", letter.escape_debug());
                if letter == 'U' {
                    parsed.update = true;
                    continue;
                }
                let value = match &letters[at + letter.len_utf8()..] {
                    "" => args.next().and_then(|next| next.to_str()),
                    attached => Some(attached),
                };
                let value = value.with_context(|| format!("-{letter} needs a value (usage: {usage})"))?;
                match letter {
                    'i' => parsed.address = Some(value),
                    _ => {
                        let count = value.parse().ok().filter(|count| *count > 0);
                        parsed.count =
                            count.with_context(|| format!("-c {}: expected a number from 1", quoted(value)))?;
                    }
                }
                break;
            }
        }
        Ok(parsed)
    }

    /// The operands, of which there must be as many as the usage names.
    pub(super) fn operands<const N: usize>(&self, usage: &str) -> Result<[&'a str; N]> {
        let operands = self.operands.as_slice().try_into().ok();
        operands.with_context(|| format!("{} arguments, expected {N} (usage: {usage})", self.operands.len()))
    }
}

/// Sends `count` rounds, [`INTERVAL`] apart.
fn announce(address: &str, family: Family, device: &str, count: u32) -> Result<()> {
    let ip: IpAddr =
        address.parse().with_context(|| format!("ADDRESS {}: expected an {family} address", quoted(address)))?;
    ensure!(Family::of(ip) == family, "ADDRESS {ip} is {}, expected an {family} address", Family::of(ip));
    let name: IfName = device.parse().with_context(|| format!("DEVICE {}", quoted(device)))?;
    let found = find(&name)?;
    ensure!(found.up, "device {name} is down: nothing can be sent through it");
    // The loopback device's is all zeros.
    let mac = found.mac.filter(|mac| mac.is_unicast());
    let mac = mac.with_context(|| format!("device {name} has no Ethernet address"))?;
    let announcement = Announcement { address: ip, device: name };
    let send: Box<dyn Fn() -> std::io::Result<()>> = match announcement.round(mac)? {
        Round::Arp(frames) => {
            let socket = PacketSocket::sender()?;
            Box::new(move || frames.iter().try_for_each(|frame| socket.send(found.index, frame)))
        }
        Round::NeighbourAdvertisement(message) => {
            let source = usable_link_local(found.index, Instant::now() + TENTATIVE)
                .with_context(|| format!("device {}", announcement.device))?;
            let socket = AdvertisementSocket::new(found.index, source)?;
            Box::new(move || socket.send(&message))
        }
    };
    // The sockets are open: nothing else is needed any more.
    let _best_effort = confine(&[], &Reach { reads: Some(&[]), writes: &[], connects: false });
    for round in 0..count {
        if round > 0 {
            sleep(INTERVAL);
        }
        send().with_context(|| announcement.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn options_come_in_any_order_and_combined() {
        for line in [
            "-U -i 192.0.2.7 eth1 -c 2",
            "-U -c 2 -i 192.0.2.7 eth1",
            "eth1 -c2 -i192.0.2.7 -U",
            "-Uc2 -i 192.0.2.7 eth1",
            "-Ui 192.0.2.7 -c 2 -- eth1",
        ] {
            let expected = Arguments { update: true, address: Some("192.0.2.7"), count: 2, operands: vec!["eth1"] };
            assert_eq!(Arguments::parse(&args(line), "Uic", ARPSEND).expect(line), expected, "{line}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let arpsend = |line: &str| format!("{:#}", arpsend(&args(line)).expect_err(line));
        let ndsend = |line: &str| format!("{:#}", ndsend(&args(line)).expect_err(line));
        let usage = format!(" (usage: {ARPSEND})");
        assert_eq!(arpsend(""), format!("-U is missing{usage}"));
        assert_eq!(arpsend("-U eth1"), format!("-i ADDRESS is missing{usage}"));
        assert_eq!(arpsend("-U -i 192.0.2.7"), format!("0 arguments, expected 1{usage}"));
        assert_eq!(arpsend("-U eth1 -i"), format!("-i needs a value{usage}"));
        assert_eq!(arpsend("-D -e 192.0.2.7 eth1"), format!("unknown option -D{usage}"));
        assert_eq!(arpsend("-U -c 0 -i 192.0.2.7 eth1"), "-c \"0\": expected a number from 1");
        assert_eq!(arpsend("-U -i 2001:db8::7 eth1"), "ADDRESS 2001:db8::7 is IPv6, expected an IPv4 address");
        assert_eq!(ndsend("192.0.2.7 eth1"), "ADDRESS 192.0.2.7 is IPv4, expected an IPv6 address");
        assert!(ndsend("2001:db8::7 ../x").starts_with("DEVICE \"../x\": expected an interface name"));
        assert_eq!(ndsend("2001:db8::7 nosuchdevice"), "no such device: nosuchdevice");
        assert!(arpsend("-U -i nonsense eth1").starts_with("ADDRESS \"nonsense\": expected an IPv4 address"));
    }

    #[test]
    fn eui64_wants_a_64() {
        let address = eui64("aa:00:00:12:34:56", "2001:db8:1::/64").expect("an address");
        assert_eq!(address.to_string(), "2001:db8:1:0:a800:ff:fe12:3456");
        for (mac, prefix, expected) in [
            ("aa:00", "2001:db8::/64", "MAC \"aa:00\": expected six octets such as aa:00:00:12:34:56"),
            ("aa:00:00:12:34:56", "192.0.2.0/24", "PREFIX 192.0.2.0/24 is IPv4, expected an IPv6 /64"),
            ("aa:00:00:12:34:56", "2001:db8::", "PREFIX: 2001:db8::/128 is a /128, expected a /64"),
        ] {
            assert_eq!(format!("{:#}", eui64(mac, prefix).expect_err(prefix)), expected);
        }
    }
}
