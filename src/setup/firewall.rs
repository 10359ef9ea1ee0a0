//! Firewall profiles: what reaches a guest. They know no connections: a guest's own connections work because what belongs to
//! them cannot be mistaken for a request.

use std::sync::Arc;

use crate::nic::{Mode, Nic, Profile};
use crate::object::Plan;
use crate::ruleset::{Datatype, Field, Group, HookPoint, Rule, Set, Statement, TableFamily, Value};
use crate::setup::dropped::{Direction, counted};
use crate::setup::neighbours::{DHCP_CLIENT, DHCP_SERVER, DHCPV6_CLIENT, DHCPV6_SERVER};
use crate::setup::shared::{BRIDGE_FORWARD, BRIDGE_OUTPUT, Shared, chain, hooked, members, refuse};
use crate::setup::{element, neighbours};

/// Set: the interfaces whose guests get no connection requests.
pub const PROTECTED: &str = "protected";
/// Set: the interfaces whose guests get those of SSH and RDP.
pub const LIMITED: &str = "limited";

/// Flags of TCP (RFC 9293, 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Ports that `limited` opens.
const SSH: Value = Value::Port(22);
const RDP: Value = Value::Port(3389);
const DOMAIN: Value = Value::Port(53);

/// The profiles of what is routed to guests.
///
/// Only what is named passes, so that nothing slips through unread: of TCP what shows its flags and is no request, hence no
/// fragment but a first one of at least 14 bytes; of UDP what shows its source port. What cannot be read (later fragments, a
/// chain of extension headers cut short, what is behind two tags) is dropped, but for later fragments of ICMP and ICMPv6.
pub static INET: Shared = Shared::new(|| Arc::new(table(TableFamily::Inet)));
/// The same of what is bridged to them or sent by the node.
pub static BRIDGE: Shared = Shared::new(|| Arc::new(table(TableFamily::Bridge)));

/// TCP that asks for no connection.
pub(super) fn no_request() -> Statement {
    Statement::not_equal(Field::TcpFlags.masked(Value::TcpFlags(SYN | ACK)), Value::TcpFlags(SYN))
}

fn table(family: TableFamily) -> Group {
    let pass = |statement| Rule::from([statement, Statement::Return]);
    let pass_all = |[first, second]: [Statement; 2]| Rule::from([first, second, Statement::Return]);
    let port = |field: Field, value: Value| Statement::equal(field, value);
    let protocol = |number| Statement::equal(Field::L4Proto, Value::InetProto(number));
    let mut protected = Vec::new();
    let mut later_fragment6 = vec![neighbours::later_fragment6()];
    if family == TableFamily::Bridge {
        // Behind one VLAN tag, too, as on a trunk; the rules on IP look behind it likewise.
        protected.push(pass(Statement::equal(Field::Protocol, Value::EtherType(0x0806))));
        later_fragment6.insert(0, Statement::equal(Field::Protocol, Value::EtherType(0x86dd)));
    }
    let offset = Field::IpFragmentOffset.masked(Value::IpFragmentOffset(0x1fff));
    let later_fragments = [vec![Statement::not_equal(offset, Value::IpFragmentOffset(0))], later_fragment6];
    let with = |matches: &[Statement], then: &[Statement]| Rule([matches, then].concat());
    protected.extend([pass(protocol(1)), pass(protocol(58))]);
    // Kernels differ in what they take for the ports and flags of later fragments.
    protected.extend(later_fragments.each_ref().map(|later| with(later, &[Statement::Counter, Statement::Drop])));
    protected.extend([pass(no_request()), pass(port(Field::UdpSport, DOMAIN)), refuse([])]);
    let to_protected = || Statement::Goto("protected".into());
    let mut limited = Vec::from(later_fragments.map(|later| with(&later, &[to_protected()])));
    limited.extend([pass(port(Field::TcpDport, SSH)), pass(port(Field::TcpDport, RDP)), Rule::from([to_protected()])]);
    let to_guests =
        || vec![members(Field::OifName, PROTECTED, "protected"), members(Field::OifName, LIMITED, "limited")];
    let hooks = match family {
        TableFamily::Bridge => {
            // The node's own answers: without them a guest would not even get its address of nfdhcpd.
            let answer = |from, to| pass_all([port(Field::UdpSport, from), port(Field::UdpDport, to)]);
            let mut output = vec![answer(DHCP_SERVER, DHCP_CLIENT), answer(DHCPV6_SERVER, DHCPV6_CLIENT)];
            output.extend(to_guests());
            vec![
                hooked("firewall_forward", HookPoint::Forward, BRIDGE_FORWARD, to_guests()),
                hooked("firewall_output", HookPoint::Output, BRIDGE_OUTPUT, output),
            ]
        }
        _ => vec![hooked("firewall_forward", HookPoint::Forward, 0, to_guests())],
    };
    let mut chains = vec![chain("protected", protected), chain("limited", limited)];
    chains.extend(hooks);
    let sets = vec![Set::new(PROTECTED, [Datatype::IfName]), Set::new(LIMITED, [Datatype::IfName])];
    counted(Group { family, sets, chains }, Direction::To, "firewall_drop")
}

/// Adds the profile of a NIC; `unprotected`, and none, need nothing.
pub fn filters(nic: &Nic, plan: &mut Plan) {
    let set = match nic.firewall {
        None | Some(Profile::Unprotected) => return,
        Some(Profile::Protected) => PROTECTED,
        Some(Profile::Limited) => LIMITED,
    };
    let table = if matches!(nic.mode, Mode::Routed { .. }) { &INET } else { &BRIDGE };
    plan.tables.push(Arc::clone(table));
    plan.elements.push(element(nic, table.family, set, []));
}
