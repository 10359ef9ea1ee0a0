//! The administrator's settings: files of /etc/default as types. The only home of defaults.

mod access;
mod dns;
mod keys;
mod routing;
mod setup;
pub mod shell;
mod vnet_hdr;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use self::access::{Service, interfaces, joined};
pub use self::dns::{Authentication, DnsSettings};
pub use self::keys::{KEYS, Key, Preset, settings_file};
pub use self::routing::{Fwmark, MarkMask, Routing};
pub use self::setup::{Setup, Setups};
use self::shell::{Assignment, Assignments};
pub use self::vnet_hdr::VnetHdrGuard;
use crate::addr::{IfName, Mac, MacMask};
use crate::deadline;
use crate::environment::variable;
use crate::model::mark::Mark;
use crate::object::TABLE_MAIN;
use crate::printable::{is_printable, quoted};
use crate::sys::files;

/// The environment variable that names a settings file to be read instead of all others.
const OTHER_FILE: &str = "SNF_NETWORK_DEFAULTS";
/// The setting of how long a run may take, in seconds; the environment variable of this name overrides it.
const TIMEOUT: &str = "SNF_NETWORK_TIMEOUT";
/// The longest, in seconds: an hour.
const MAX_TIMEOUT: u64 = 3600;
/// Where settings are looked for; the first that exists is read.
const FILES: [&str; 2] = ["/etc/default/snf-network", "/etc/default/gnt-networking"];
/// Overrides the settings of DNS, where it exists.
const DNS_FILE: &str = "/etc/ganeti/dnshook.conf";
/// Longest settings file in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// MAC_MASK, unless the settings say another.
pub const MAC_MASK: MacMask = MacMask::of_octets([0xff, 0xff, 0xf0, 0, 0, 0]);

/// OVSDB_SOCKET, unless the settings say another: where Debian's packages have it.
pub const OVSDB_SOCKET: &str = "/run/openvswitch/db.sock";

/// Keys of former versions that say which programs to run, and how. Nothing is run any more.
const IGNORED: [&str; 18] = [
    "RUNLOCKED_OPTS",
    "MAC2EUI64",
    "ARPING",
    "ARPSEND",
    "ARPTABLES",
    "ARPTABLES_SAVE",
    "BRCTL",
    "EBTABLES",
    "IP6TABLES",
    "IP6TABLES_SAVE",
    "IPTABLES",
    "IPTABLES_SAVE",
    "IP_CMD",
    "MODPROBE",
    "NDSEND",
    "NSUPDATE",
    "RUNLOCKED",
    "VCONFIG",
];

/// Every setting. An empty value in the file leaves the default, as `: ${KEY:=default}` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// STATE_DIR: what we recorded of each interface.
    pub state_dir: PathBuf,
    /// LOGFILE.
    pub logfile: PathBuf,
    /// IFUP_EXTRA_SCRIPT: the administrator's own script, the last act of ifup.
    pub ifup_extra_script: Option<PathBuf>,
    /// MAC_MASK: the prefix that isolates a private-filtered network.
    pub mac_mask: MacMask,
    /// TAP_CONSTANT_MAC: the MAC of every routed TAP; unicast.
    pub tap_constant_mac: Mac,
    /// NFDHCPD_STATE_DIR: nfdhcpd's binding files.
    pub nfdhcpd_state_dir: PathBuf,
    /// NFDHCPD_STATE_EXTRA: more lines `KEY=value` in each of them, without a final line end.
    pub nfdhcpd_state_extra: Option<String>,
    /// GANETI_NIC_DIR: Ganeti's NIC files under Xen.
    pub ganeti_nic_dir: PathBuf,
    /// SNF_NETWORK_TIMEOUT: what a run may take.
    pub timeout: Duration,
    /// ROUTING: how the packets of routed NICs come to their table.
    pub routing: Routing,
    /// ROUTING_MARK_MASK: the bits of the mark that say so.
    pub routing_mark_mask: MarkMask,
    /// OVSDB_SOCKET: where Open vSwitch's ovsdb-server listens.
    pub ovsdb_socket: PathBuf,
    /// VNET_HDR_GUARD: what is done about the virtio header of a TAP.
    pub vnet_hdr_guard: VnetHdrGuard,
    /// HOST_ACCESS: services of the node that its routed guests may reach.
    pub host_access: Vec<Service>,
    /// FORWARD_FROM: interfaces whose packets are forwarded to uplinks of guests' tables.
    pub forward_from: Vec<IfName>,
    /// IPSPOOF: no source-address check on routed NICs.
    pub ipspoof: bool,
    /// GUEST_LINK_LOCAL=eui64: guests whose sources are checked may use no link-local address but that of their MAC.
    pub eui64_only: bool,
    /// ROUTER_LINK_LOCAL: those that no such guest may use.
    pub router_link_local: Vec<Ipv6Addr>,
    /// Dynamic DNS.
    pub dns: DnsSettings,
    /// In the order of [`Setup::ALL`].
    tags: [Cow<'static, str>; Setup::ALL.len()],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/snf-network".into(),
            logfile: "/var/log/ganeti/snf-network.log".into(),
            ifup_extra_script: None,
            mac_mask: MAC_MASK,
            tap_constant_mac: Mac([0xcc, 0x47, 0x52, 0x4e, 0x45, 0x54]),
            nfdhcpd_state_dir: "/var/lib/nfdhcpd".into(),
            nfdhcpd_state_extra: None,
            ganeti_nic_dir: "/var/run/ganeti/xen-hypervisor/nic".into(),
            timeout: Duration::from_secs(30),
            routing: Routing::Mark,
            routing_mark_mask: MarkMask::DEFAULT,
            ovsdb_socket: OVSDB_SOCKET.into(),
            vnet_hdr_guard: VnetHdrGuard::Required,
            host_access: Vec::new(),
            forward_from: Vec::new(),
            ipspoof: false,
            eui64_only: false,
            router_link_local: Vec::new(),
            dns: DnsSettings::default(),
            tags: Setup::ALL.map(|setup| Cow::Borrowed(setup.default_tag())),
        }
    }
}

impl Settings {
    /// Reads the settings of this node, and what to warn of, a line each. No file at all means the defaults. From here on the
    /// run has its deadline.
    ///
    /// # Errors
    /// If a file cannot be read or understood: one line that names it, the line in it, the value and what was expected.
    pub fn load() -> Result<(Self, Vec<String>)> {
        let other = variable(OTHER_FILE).filter(|file| !file.is_empty());
        let (mut settings, warnings) = Self::load_from(other.as_deref().map(Path::new), &FILES, DNS_FILE)?;
        if let Some(value) = variable(TIMEOUT).filter(|value| !value.is_empty()) {
            let value = value.to_string_lossy();
            settings.timeout = timeout(&value).with_context(|| format!("{TIMEOUT} {}", quoted(&value)))?;
        }
        deadline::begin(settings.timeout);
        Ok((settings, warnings))
    }

    /// Reads `other` alone if there is one, else the first of `files` that exists, and `dns_file`.
    fn load_from(other: Option<&Path>, files: &[&str], dns_file: &str) -> Result<(Self, Vec<String>)> {
        if let Some(file) = other {
            let name = file.to_string_lossy();
            let text = files::read_trusted(file, MAX_FILE)
                .map_err(Into::into)
                .and_then(|text| text.context("no such file, expected a settings file"));
            let text = text.with_context(|| format!("{OTHER_FILE} {}", quoted(&name)))?;
            return Self::parse(&text, &name);
        }
        let mut main = (Vec::new(), "");
        for file in files {
            if let Some(text) = files::read_trusted(Path::new(file), MAX_FILE).context((*file).to_owned())? {
                main = (text, *file);
                break;
            }
        }
        let dns = files::read_trusted(Path::new(dns_file), MAX_FILE).context(dns_file.to_owned())?;
        Self::merge(main, dns.as_deref().map(|text| (text, dns_file)))
    }

    /// Understands the text of one settings file; `file` is its name in messages.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(text: &[u8], file: &str) -> Result<(Self, Vec<String>)> {
        Self::merge((text, file), None)
    }

    /// Understands a settings file, and one whose DNS settings override it.
    fn merge(main: (impl AsRef<[u8]>, &str), dns: Option<(&[u8], &str)>) -> Result<(Self, Vec<String>)> {
        let mut settings = Self::default();
        let mut warnings = Vec::new();
        let mut assignments = Assignments::default();
        assignments.read(main.0.as_ref(), &main.1.escape_debug().to_string())?;
        for assignment in &assignments.0 {
            if !settings.set(assignment).with_context(|| place(assignment))? {
                let Assignment { key, file, line, .. } = assignment;
                warnings.push(format!("{file}:{line}: {key} is no setting known here"));
            }
        }
        if let Some((text, dns_file)) = dns {
            // Its variables continue those of the first file, as if it were sourced after it.
            assignments.read(text, dns_file)?;
            settings.dns = DnsSettings::default();
            for assignment in &assignments.0 {
                let known = settings.dns.set(assignment).with_context(|| place(assignment))?;
                let Assignment { key, file, line, .. } = assignment;
                if !known && file == dns_file {
                    warnings.push(format!("{file}:{line}: {key} is no DNS setting"));
                }
            }
        }
        Ok((settings, warnings))
    }

    /// The tag that selects `setup`.
    pub fn tag(&self, setup: Setup) -> &str {
        &self.tags[setup as usize]
    }

    /// The mark of the packets that `table` routes; none if the table is main, to which they come anyway, or if its number does not
    /// fit into ROUTING_MARK_MASK.
    pub fn mark(&self, table: u32) -> Option<Mark> {
        (table != TABLE_MAIN).then(|| self.routing_mark_mask.of_table(table)).flatten()
    }

    /// That mark, and which packets are routed by it.
    pub fn fwmark(&self, table: u32) -> Option<Fwmark> {
        Some(Fwmark { mark: self.mark(table)?, routing: self.routing })
    }

    /// What a NIC's Plan is made from, as assignments for its record. NFDHCPD_STATE_EXTRA has no part in what must be
    /// removed, and may be of several lines, so it is left out.
    pub fn for_record(&self) -> Vec<(&'static str, String)> {
        let mut assignments = vec![
            ("MAC_MASK", self.mac_mask.to_string()),
            ("TAP_CONSTANT_MAC", self.tap_constant_mac.to_string()),
            ("NFDHCPD_STATE_DIR", self.nfdhcpd_state_dir.display().to_string()),
            ("ROUTING", self.routing.to_string()),
            ("ROUTING_MARK_MASK", self.routing_mark_mask.to_string()),
            ("OVSDB_SOCKET", self.ovsdb_socket.display().to_string()),
            ("HOST_ACCESS", joined(&self.host_access)),
            ("IPSPOOF", if self.ipspoof { "yes" } else { "" }.to_owned()),
            ("GUEST_LINK_LOCAL", if self.eui64_only { "eui64" } else { "any" }.to_owned()),
            ("ROUTER_LINK_LOCAL", self.router_link_local.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            ("FZONE", self.dns.fzone.clone().unwrap_or_default()),
        ];
        assignments.extend(Setup::ALL.map(|setup| (setup.key(), self.tag(setup).to_owned())));
        assignments
    }

    /// Undoes [`Settings::for_record`].
    ///
    /// # Errors
    /// If a value is not valid.
    pub fn of_record<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let mut settings = Self::default();
        for (line, (key, _)) in (1..).zip(settings.for_record()) {
            let value = get(key).unwrap_or_default().to_owned();
            let assignment = Assignment { key: key.to_owned(), value, file: "record".to_owned(), line };
            settings.set(&assignment).with_context(|| place(&assignment))?;
        }
        Ok(settings)
    }

    /// Takes one setting over; false if it is not known.
    fn set(&mut self, assignment: &Assignment) -> Result<bool> {
        let (key, value) = (assignment.key.as_str(), assignment.value.as_str());
        if !KEYS.iter().any(|known| known.name == key) && !IGNORED.contains(&key) {
            return Ok(false);
        }
        let given = !value.is_empty();
        match key {
            "STATE_DIR" if given => self.state_dir = path(value)?,
            "LOGFILE" if given => self.logfile = path(value)?,
            "IFUP_EXTRA_SCRIPT" if given => self.ifup_extra_script = Some(path(value)?),
            "MAC_MASK" if given => self.mac_mask = value.parse()?,
            "TAP_CONSTANT_MAC" if given => self.tap_constant_mac = unicast(value)?,
            "NFDHCPD_STATE_DIR" if given => self.nfdhcpd_state_dir = path(value)?,
            "NFDHCPD_STATE_EXTRA" if given => self.nfdhcpd_state_extra = Some(binding_lines(value)?),
            "GANETI_NIC_DIR" if given => self.ganeti_nic_dir = path(value)?,
            TIMEOUT if given => self.timeout = timeout(value)?,
            "ROUTING" if given => self.routing = value.parse()?,
            "ROUTING_MARK_MASK" if given => self.routing_mark_mask = value.parse()?,
            "OVSDB_SOCKET" if given => self.ovsdb_socket = path(value)?,
            "VNET_HDR_GUARD" if given => self.vnet_hdr_guard = value.parse()?,
            "HOST_ACCESS" => self.host_access = access::services(value)?,
            "FORWARD_FROM" => self.forward_from = interfaces(value)?,
            "IPSPOOF" => self.ipspoof = given,
            "GUEST_LINK_LOCAL" if given => self.eui64_only = eui64_only(value)?,
            "ROUTER_LINK_LOCAL" if given => self.router_link_local = link_local(value)?,
            "STATE_DIR"
            | "LOGFILE"
            | "IFUP_EXTRA_SCRIPT"
            | "MAC_MASK"
            | "TAP_CONSTANT_MAC"
            | "NFDHCPD_STATE_DIR"
            | "NFDHCPD_STATE_EXTRA"
            | "GANETI_NIC_DIR"
            | TIMEOUT
            | "ROUTING"
            | "ROUTING_MARK_MASK"
            | "OVSDB_SOCKET"
            | "GUEST_LINK_LOCAL"
            | "ROUTER_LINK_LOCAL"
            | "VNET_HDR_GUARD" => {}
            _ => {
                if let Some(setup) = Setup::ALL.into_iter().find(|setup| setup.key() == key) {
                    if given {
                        self.tags[setup as usize] = Cow::Owned(tag(value)?);
                    }
                } else if !self.dns.set(assignment)? {
                    return Ok(IGNORED.contains(&key));
                }
            }
        }
        Ok(true)
    }
}

/// `file:line: KEY "value"`, the start of a message.
fn place(Assignment { key, value, file, line }: &Assignment) -> String {
    format!("{file}:{line}: {key} {}", quoted(value))
}

fn timeout(value: &str) -> Result<Duration> {
    let seconds = value.parse().ok().filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds) && !value.starts_with('+'));
    seconds.map(Duration::from_secs).with_context(|| format!("expected seconds, 1 to {MAX_TIMEOUT}"))
}

fn path(value: &str) -> Result<PathBuf> {
    ensure!(value.starts_with('/') && is_printable(value), "expected an absolute path");
    Ok(value.into())
}

fn text(value: &str) -> Result<String> {
    ensure!(is_printable(value), "expected printable text");
    Ok(value.to_owned())
}

/// A tag as Ganeti takes it: TAG_VALID of its lib/objects.py, and our own rule that it must be printable.
fn tag(value: &str) -> Result<String> {
    let of_tags = |c: char| c.is_alphanumeric() || "_.+*/:@-".contains(c);
    ensure!(
        value.chars().all(of_tags) && is_printable(value),
        "expected a tag: letters, digits, or any of _ . + * / : @ -"
    );
    Ok(value.to_owned())
}

fn unicast(value: &str) -> Result<Mac> {
    let mac: Mac = value.parse()?;
    ensure!(mac.is_unicast(), "expected a unicast MAC");
    Ok(mac)
}

fn eui64_only(value: &str) -> Result<bool> {
    match value {
        "any" => Ok(false),
        "eui64" => Ok(true),
        _ => bail!("expected any or eui64"),
    }
}

/// Addresses between spaces.
fn link_local(value: &str) -> Result<Vec<Ipv6Addr>> {
    let address = |word: &str| word.parse().ok().filter(|it: &Ipv6Addr| it.segments()[..4] == [0xfe80, 0, 0, 0]);
    let addresses = value.split_whitespace().map(address).collect::<Option<BTreeSet<_>>>();
    Ok(addresses.context("expected IPv6 addresses in fe80::/64, between spaces")?.into_iter().collect())
}

/// Lines as nfdhcpd reads them: it splits at each `=` and takes the first two parts.
fn binding_lines(value: &str) -> Result<String> {
    let fits = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or_default();
        !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            && !value.contains('=')
            && is_printable(value)
    };
    let value = value.trim_matches('\n');
    ensure!(value.split('\n').all(fits), "expected lines KEY=value with one = each");
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests;
