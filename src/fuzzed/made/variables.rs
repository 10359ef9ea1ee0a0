//! Settings and the variables of records, with values that are right and some that make trouble.

/// Values that make trouble for one setting or another.
pub(super) const SETTINGS: &[&str] = &[
    "",
    "$STATE_DIR",
    "${LOGFILE}",
    "${FZONE:-/x}",
    "${A:+b}",
    "$(id)",
    "`id`",
    "yes",
    "no",
    "0",
    "0x",
    "0xff00",
    "4294967296",
    "-1",
    "a b",
    "'",
    "\"",
    "\\",
    "#",
    "relative",
    "/a/../b",
    "ff:ff:ff:0:0:0",
    "1:0:0:0:0:0",
    "mark",
    "rule",
    "3600",
    "3601",
    "host:53 [2001:db8::53]:5353",
    "π",
    "\t",
];

/// What stands before a key, between it and its value, and behind that.
pub(super) const ASSIGNMENTS: &[(&str, &str, &str)] = &[
    ("", "=", "\n"),
    ("", "='", "'\n"),
    ("", "=\"", "\"\n"),
    ("export ", "=", "\n"),
    (": ${", ":=", "}\n"),
    (": \"${", ":=", "}\"\n"),
    ("  ", "=", " # x\n"),
    ("", "=", " "),
    ("", "=$", "\n"),
    ("", "=${", "}\n"),
    ("", "=\\", "\\\n"),
    ("#", "=", "\n"),
    ("", " = ", "\n"),
];

/// Variables of a NIC's record, besides those of the NIC.
pub(super) const RECORDED: &[(&str, &[&str])] = &[
    ("MAC_MASK", &["ff:ff:f0:00:00:00", "ff:ff:ff:0:0:0"]),
    ("TAP_CONSTANT_MAC", &["cc:47:52:4e:45:54"]),
    ("NFDHCPD_STATE_DIR", &["/var/lib/nfdhcpd", "/it is's"]),
    ("ROUTING", &["mark", "rule"]),
    ("ROUTING_MARK_MASK", &["0xfff00000", "0xff00"]),
    ("OVSDB_SOCKET", &["/run/openvswitch/db.sock"]),
    ("IPSPOOF", &["", "yes"]),
    ("FZONE", &["", "vm.example.org"]),
    ("IP_LESS_ROUTED_TAG", &["ip-less-routed"]),
    ("IFINDEX", &["7", "0", "4294967295"]),
    ("UPLINK", &["eth1", "", "eth1 bond0.5"]),
    ("UPLINK6", &["eth1", ""]),
    ("BRIDGE_MTU", &["", "1400", "9000"]),
    ("BRIDGE_DEFAULT_PVID", &["", "1", "0"]),
    ("BRIDGE_UPLINKS", &["", "bond0:10:20 eth1", "eth1"]),
    ("BEFORE_MAC", &["02:00:00:00:03:01", ""]),
    ("BEFORE_MTU", &["1500", ""]),
    ("BEFORE_UP", &["0", "1"]),
    ("BEFORE_SETTINGS", &["ipv4.forwarding=0 ipv6.accept_ra=1 ipv4.proxy_delay=80", ""]),
];

/// Variables of an uplink's record.
pub(super) const UPLINK: &[(&str, &[&str])] = &[
    ("IFACE", &["eth1", "bond0.5"]),
    ("TABLE", &["100", "254", "4294967295"]),
    ("GATEWAY", &["10.0.0.1", "2001:db8::1", ""]),
    ("ROUTES", &["10.0.0.0/24", "10.0.0.0/24 10.1.0.0/16", "2001:db8::/64", ""]),
    ("ARP_IP", &["10.0.0.254", ""]),
    ("FORWARDING", &["1", "0"]),
    ("PROXY", &["1", "0"]),
    ("MARK", &["0x06400000/0xfff00000", ""]),
    ("BEFORE_UP", &["0", "1"]),
    ("BEFORE_SETTINGS", &["all.forwarding=0 ipv6.proxy_ndp=0", ""]),
];
