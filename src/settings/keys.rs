//! The keys of the settings file, for those who read them and for what is written about them: the file in /etc/default and
//! its manual page.

/// A key of the settings file. One that is not among [`KEYS`] is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is unless it is set.
    pub preset: Preset,
    /// What it means, in one line without a full stop.
    pub meaning: &'static str,
}

/// What a key is unless it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Value(&'static str),
    /// Nothing; a value that could be there is this one.
    Unset(&'static str),
}

impl Preset {
    /// A value that can stand behind the key.
    pub fn value(self) -> &'static str {
        match self {
            Self::Value(value) | Self::Unset(value) => value,
        }
    }
}

use Preset::{Unset, Value};

const fn key(name: &'static str, preset: Preset, meaning: &'static str) -> Key {
    Key { name, preset, meaning }
}

/// Every key, in the order in which they are described.
pub const KEYS: [Key; 36] = [
    key("STATE_DIR", Value("/var/lib/snf-network"), "where what stands of each interface is recorded"),
    key("LOGFILE", Value("/var/log/ganeti/snf-network.log"), "the log, a line per action"),
    key("IFUP_EXTRA_SCRIPT", Unset("/etc/ganeti/ifup-extra"), "your own script, exec'd as the last act of ifup"),
    key("MAC_MASK", Value("ff:ff:f0:00:00:00"), "the bits of the MAC that isolate a private-filtered network"),
    key("TAP_CONSTANT_MAC", Value("cc:47:52:4e:45:54"), "the MAC of every ip-less-routed TAP, the same on all nodes"),
    key("NFDHCPD_STATE_DIR", Value("/var/lib/nfdhcpd"), "where nfdhcpd looks for its binding files"),
    key("NFDHCPD_STATE_EXTRA", Unset("MTU=1400"), "more lines KEY=value in each binding file"),
    key("GANETI_NIC_DIR", Value("/var/run/ganeti/xen-hypervisor/nic"), "Ganeti's NIC files for Xen"),
    key("SNF_NETWORK_TIMEOUT", Value("30"), "how long a run may take, in seconds"),
    key("ROUTING", Value("mark"), "rule or mark: how the packets of routed NICs come to their table"),
    key("ROUTING_MARK_MASK", Value("0xfff00000"), "the bits of a packet's mark that are ours"),
    key("OVSDB_SOCKET", Value("/run/openvswitch/db.sock"), "where Open vSwitch's ovsdb-server listens"),
    key(
        "VNET_HDR_GUARD",
        Value("required"),
        "required, optional or off: whether TAPs with a virtio header are guarded",
    ),
    key("HOST_ACCESS", Unset("tcp/9100 udp/53"), "services of the node that routed guests may reach: PROTOCOL/PORT"),
    key(
        "FORWARD_FROM",
        Unset("docker0"),
        "interfaces whose packets are forwarded into guests' networks, beside TAPs and uplinks",
    ),
    key("IPSPOOF", Unset("yes"), "with any value, routed NICs may send from any source address"),
    key(
        "GUEST_LINK_LOCAL",
        Value("any"),
        "any or eui64: which link-local addresses a guest whose sources are checked may use, its own choice or that of its MAC",
    ),
    key(
        "ROUTER_LINK_LOCAL",
        Unset("fe80::21:1 fe80::21:2"),
        "link-local addresses of routers, between spaces, which no guest whose sources are checked may use",
    ),
    key("IP_LESS_ROUTED_TAG", Value("ip-less-routed"), "the network tag of routed guests on nodes without an address"),
    key("MAC_FILTERED_TAG", Value("private-filtered"), "the network tag of isolation by MAC prefix"),
    key("STRICT_FILTERED_TAG", Value("strict-filtered"), "the network tag of NICs that send their own addresses only"),
    key("NFDHCPD_TAG", Value("nfdhcpd"), "the network tag of NICs that nfdhcpd serves"),
    key("DNS_TAG", Value("dns"), "the network tag of NICs whose addresses get records by dynamic DNS"),
    key("BRIDGED_TAG", Value("bridged"), "a network tag that means a bridge port and nothing else"),
    key("PUBLIC_TAG", Value("public"), "a network tag that selects nothing more"),
    key("MASQ_TAG", Value("masq"), "a network tag that is reserved"),
    key(
        "AUTHENTICATION_METHOD",
        Unset("bind9"),
        "how DNS updates are signed: bind9 (TSIG, with a KEYFILE) or plain (not)",
    ),
    key(
        "SERVER",
        Unset("192.0.2.53"),
        "name servers for updates, between spaces, each perhaps with a port; without one, no DNS",
    ),
    key("FZONE", Unset("vm.example.org"), "the domain of instances whose name has no dot"),
    key("TTL", Value("300"), "time to live of the records, in seconds"),
    key("KEYFILE", Unset("/etc/ganeti/dns.key"), "the file with the TSIG key"),
    key("DNS_TIMEOUT", Value("10"), "how long a run may wait for name servers, in seconds"),
    key("KERBEROS_PRINCIPAL", Unset("host/node.example.org"), "accepted; GSS-TSIG is not built in"),
    key("KERBEROS_KEYTAB", Value("/etc/krb5.keytab"), "accepted; GSS-TSIG is not built in"),
    key("KERBEROS_TICKET", Unset("/var/lib/snf-network.ccache"), "accepted; GSS-TSIG is not built in"),
    key("KERBEROS_KSTART_ARGS", Unset("-H 60"), "accepted; GSS-TSIG is not built in"),
];

/// The settings file as it is installed: every key with its meaning and its default, and none of them set.
pub fn settings_file() -> String {
    let mut text = String::from(
        "# Settings of snf-network: snf-network(5).\n\
         # Shell syntax, which is read and never executed. A line that is commented out shows the default, or an example\n\
         # where there is none.\n",
    );
    for Key { name, preset, meaning } in KEYS {
        let none = if matches!(preset, Unset(_)) { " (default: none)" } else { "" };
        let value = preset.value();
        let quote = if value.contains([' ', '\'']) { "\"" } else { "" };
        text += &format!("\n# {meaning}{none}\n#{name}={quote}{value}{quote}\n");
    }
    text
}
