//! The dumps themselves, each begun again while other changes come between its parts.

use anyhow::{Result, bail};
use netlink_packet_core::{Emitable, NLM_F_DUMP, Parseable};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use nix::libc::{EAFNOSUPPORT, RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE};

use crate::addr::Family;
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};
use crate::kernel::rtnetlink::address_family;

/// How often a dump is begun again.
const DUMPS: usize = 32;

/// The answer of a dump that nothing interrupted.
pub fn whole<T>(netlink: &mut Netlink, mut dump: impl FnMut(&mut Netlink) -> Result<T, Error>) -> Result<T> {
    for _ in 0..DUMPS {
        let answer = dump(netlink)?;
        if !netlink.was_interrupted() {
            return Ok(answer);
        }
    }
    bail!("rtnetlink: what was read changed meanwhile, {DUMPS} times")
}

/// All policy rules of a family.
pub fn rules(netlink: &mut Netlink, family: Family) -> Result<Vec<RuleMessage>> {
    let mut rule = RuleMessage::default();
    rule.header.family = address_family(family);
    match messages(netlink, RTM_GETRULE, &rule) {
        // With ipv6.disable=1.
        Err(error) if error.downcast_ref().is_some_and(|it: &Error| it.errno == EAFNOSUPPORT) => Ok(Vec::new()),
        rules => rules,
    }
}

/// All routes of a family, of all tables.
pub fn routes(netlink: &mut Netlink, family: Family) -> Result<Vec<RouteMessage>> {
    let mut route = RouteMessage::default();
    route.header.address_family = address_family(family);
    messages(netlink, RTM_GETROUTE, &route)
}

/// All neighbour entries of a family.
pub fn neighbours(netlink: &mut Netlink, family: Family) -> Result<Vec<NeighbourMessage>> {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = address_family(family);
    messages(netlink, RTM_GETNEIGH, &neighbour)
}

/// All proxy entries of a family.
pub fn proxies(netlink: &mut Netlink, family: Family) -> Result<Vec<NeighbourMessage>> {
    let mut proxy = NeighbourMessage::default();
    proxy.header.family = address_family(family);
    proxy.header.flags = NeighbourFlags::Proxy;
    messages(netlink, RTM_GETNEIGH, &proxy)
}

fn messages<T: Parseable<[u8]>>(netlink: &mut Netlink, kind: u16, message: &impl Emitable) -> Result<Vec<T>> {
    whole(netlink, |netlink| {
        let mut all = Vec::new();
        netlink.each_answer(Request::new(kind, message, NLM_F_DUMP), |_, payload| {
            all.extend(T::parse(payload).ok());
            true
        })?;
        Ok(all)
    })
}
