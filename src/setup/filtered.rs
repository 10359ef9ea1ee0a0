//! `private-filtered`: isolation on a shared bridge. A port sends with its NIC's MAC only, and receives only from MACs of
//! its own network, whose first bits under MAC_MASK are the same.

use std::sync::Arc;

use crate::addr::{IfName, Mac, MacMask};
use crate::nic::Nic;
use crate::object::Plan;
use crate::ruleset::{
    Datatype, Element, Field, Group, HookPoint, Name, Raw, RawHeader, Rule, Set, Statement, TableFamily, Value,
};
use crate::settings::{self, Settings};
use crate::setup::dropped::{Direction, counted};
use crate::setup::element;
use crate::setup::shared::{
    BRIDGE_FORWARD, BRIDGE_OUTPUT, BRIDGE_PREROUTING, Shared, chain, hooked, members, not_from, refuse,
};

/// Set of the bridge table: the ports whose Ethernet source is checked.
pub const FILTERED: &str = "filtered";
/// Set of the bridge table: the Ethernet source that a port may send.
const FROM: &str = "from";
/// Set of the bridge table: the prefix of the Ethernet sources that a port may receive. Another mask than the default one
/// is appended to this name.
const TO: &str = "to";

/// The groups 01:80:c2:00:00:0X of bridges and their neighbours (IEEE 802.1Q, table 8-1).
const LINK_GROUPS: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
const LINK_GROUPS_MASK: Mac = Mac([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]);

/// The bit of an Ethernet address by which it is a group's.
const GROUP: Mac = Mac([1, 0, 0, 0, 0, 0]);

const ETHERTYPE_IPV6: Value = Value::EtherType(0x86dd);
const IGMP: Value = Value::InetProto(2);
const HOP_BY_HOP: Value = Value::InetProto(0);
/// The type of an IGMP message (RFC 2236, 2.1).
const IGMP_TYPE: Raw = Raw { header: RawHeader::Transport, offset: 0, length: 1 };
/// Reports of versions 1 to 3 and the end of a membership (RFC 1112, RFC 2236, RFC 3376).
const IGMP_REPORTS: [u128; 4] = [0x12, 0x16, 0x17, 0x22];
/// The same of MLD (RFC 2710, RFC 3810).
const MLD_REPORTS: [Value; 3] = [Value::Icmp6Type(131), Value::Icmp6Type(132), Value::Icmp6Type(143)];

/// FROMTAP: a [`FILTERED`] port sends with its own MAC, and neither spanning tree's BPDUs nor anything else to the groups
/// that are for bridges. It is checked in prerouting, before the bridge learns from a forged frame where a MAC is.
///
/// Nor is it a multicast router. The bridge reads IGMP, and MLD behind a hop-by-hop header, to learn which port wants which
/// group (br_multicast_rcv of the kernel's net/bridge/br_multicast.c), and a single query makes it forward to nobody who does
/// not report. So only reports reach it: no query, no router discovery (RFC 4286), nothing whose type cannot be read. It also reads
/// behind one VLAN tag, and so do these rules.
pub static SENDERS: Shared = Shared::new(|| Arc::new(senders()));

fn senders() -> Group {
    let goto = |name: &'static str| Statement::Goto(name.into());
    let daddr = |mask, value| Statement::equal(Field::EtherDaddr.masked(Value::Mac(mask)), Value::Mac(value));
    let from_tap =
        vec![refuse([not_from(Field::EtherSaddr, FROM)]), Rule::from([daddr(GROUP, GROUP), goto("to_groups")])];
    let ipv6 = || Statement::equal(Field::Protocol, ETHERTYPE_IPV6);
    let to_groups = vec![
        refuse([daddr(LINK_GROUPS_MASK, LINK_GROUPS)]),
        Rule::from([Statement::equal(Field::IpProtocol, IGMP), goto("igmp_reports")]),
        Rule::from([Statement::equal(Field::Ip6NextHeader, HOP_BY_HOP), goto("mld_reports")]),
    ];
    let igmp = |kind| Statement::equal(Field::Raw(IGMP_TYPE), Value::Raw(IGMP_TYPE, kind));
    let mld = |kind| Statement::equal(Field::Icmp6Type, kind);
    let only = |reports: Vec<Rule>| reports.into_iter().chain([refuse([])]).collect();
    let igmp = IGMP_REPORTS.map(|kind| Rule::from([igmp(kind), Statement::Return]));
    let mld = MLD_REPORTS.map(|kind| Rule::from([ipv6(), mld(kind), Statement::Return]));
    let group = Group {
        family: TableFamily::Bridge,
        sets: vec![Set::new(FILTERED, [Datatype::IfName]), Set::new(FROM, [Datatype::IfName, Datatype::EtherAddr])],
        chains: vec![
            chain("FROMTAP", from_tap),
            chain("to_groups", to_groups),
            chain("igmp_reports", only(igmp.into())),
            chain("mld_reports", only(mld.into())),
            hooked(
                "prerouting",
                HookPoint::Prerouting,
                BRIDGE_PREROUTING,
                vec![members(Field::IifName, FILTERED, "FROMTAP")],
            ),
        ],
    };
    counted(group, Direction::From, "FROMTAP_drop")
}

/// TOTAP: an [`isolated`] port receives from MACs of its network only. Frames to a group or to everybody that the node itself
/// sends pass output, all others forward. A mask has sets and chains of its own, as NICs that were set up under another
/// MAC_MASK keep theirs.
pub fn receivers(mask: MacMask) -> Group {
    let prefix = Field::EtherSaddr.masked(Value::Mac(Mac(mask.octets())));
    let name = |base| masked_name(base, mask);
    let rules = vec![
        Rule::from([Statement::contained([Field::OifName.into(), prefix], name(TO)), Statement::Return]),
        refuse([]),
    ];
    let jump = || vec![members(Field::OifName, isolated(mask), name("TOTAP"))];
    let group = Group {
        family: TableFamily::Bridge,
        sets: vec![
            Set::new(isolated(mask), [Datatype::IfName]),
            Set::new(name(TO), [Datatype::IfName, Datatype::EtherAddr]),
        ],
        chains: vec![
            chain(name("TOTAP"), rules),
            hooked(name("forward"), HookPoint::Forward, BRIDGE_FORWARD, jump()),
            hooked(name("output"), HookPoint::Output, BRIDGE_OUTPUT, jump()),
        ],
    };
    counted(group, Direction::To, name("TOTAP_drop"))
}

/// Name of the set of the bridge table that holds the ports which are isolated by `mask`.
pub fn isolated(mask: MacMask) -> Name {
    masked_name("isolated", mask)
}

/// The masks under which NICs of this node may be isolated, as far as the settings tell.
pub fn masks(settings: &Settings) -> Vec<MacMask> {
    let mut masks = vec![settings::MAC_MASK];
    masks.extend(Some(settings.mac_mask).filter(|mask| *mask != settings::MAC_MASK));
    masks
}

/// `to`, or `to_ffff00000000` for another mask than the default one.
fn masked_name(base: &'static str, mask: MacMask) -> Name {
    if mask == settings::MAC_MASK {
        return base.into();
    }
    let digits: String = mask.octets().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{base}_{digits}").into()
}

/// Adds both filters of a NIC.
pub fn filters(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    let mask = settings.mac_mask;
    sender(nic, plan);
    plan.tables.push(receivers(mask).into());
    let prefix = Value::Mac(mask.apply(nic.mac));
    plan.elements.push(element(nic, TableFamily::Bridge, isolated(mask), []));
    plan.elements.push(element(nic, TableFamily::Bridge, masked_name(TO, mask), [prefix]));
}

/// Adds the filter of what a NIC sends, unless the Plan has it.
pub fn sender(nic: &Nic, plan: &mut Plan) {
    if !plan.tables.contains(&SENDERS) {
        plan.tables.push(Arc::clone(&SENDERS));
        plan.elements.push(element(nic, TableFamily::Bridge, FILTERED, []));
        plan.elements.push(element(nic, TableFamily::Bridge, FROM, [Value::Mac(nic.mac)]));
    }
}

/// The filters of one TAP as chains of its own would say them, a line each: what the elements of the shared sets mean.
pub fn per_tap(elements: &[Element]) -> Vec<String> {
    let chain_of = |tap: &IfName| tap.as_str().to_uppercase();
    let mut rules = Vec::new();
    let mut hooks = Vec::new();
    for element in elements.iter().filter(|element| element.family == TableFamily::Bridge) {
        let [Value::IfName(tap), Value::Mac(mac)] = element.key.as_slice() else { continue };
        let own = chain_of(tap);
        if element.set == FROM {
            rules.push(format!("FROM{own}: ether saddr != {mac} drop"));
            hooks.push(format!("prerouting: iifname \"{tap}\" jump FROM{own}"));
        } else if let Some(mask) = mask_of(&element.set) {
            rules.push(format!("TO{own}: ether saddr & {mask} != {mac} drop"));
            hooks.extend(["forward", "output"].map(|hook| format!("{hook}: oifname \"{tap}\" jump TO{own}")));
        }
    }
    rules.extend(hooks);
    rules
}

/// The mask of a set [`TO`].
fn mask_of(set: &str) -> Option<MacMask> {
    if set == TO {
        return Some(settings::MAC_MASK);
    }
    let digits = set.strip_prefix(TO)?.strip_prefix('_')?;
    let octets: Vec<_> = (0..6).map(|octet| digits.get(octet * 2..octet * 2 + 2)).collect::<Option<_>>()?;
    octets.join(":").parse().ok()
}
