//! Which lines of a Plan a step shows.

use anyhow::Result;

use super::world::Hosted;
use crate::addr::{Family, IfName};
use crate::object::{Hop, Object, Plan, Verb};
use crate::ruleset::{Group, TableFamily};

/// TAP, IP of both families, and MAC.
pub fn guest(hosted: &Hosted) -> Result<String> {
    let [v4, v6] = Family::BOTH.map(|family| hosted.address(family));
    Ok(format!("{} {} {} {}", hosted.tap, v4?, v6?, hosted.guest.mac()))
}

/// The commands of the objects that are `wanted`.
pub fn objects(plan: &Plan, wanted: impl Fn(&Object) -> bool) -> Vec<String> {
    plan.objects.iter().filter(|it| wanted(it)).map(|it| it.command(Verb::Add)).collect()
}

/// Settings with this name.
pub fn setting(name: &'static str) -> impl Fn(&Object) -> bool {
    move |object| matches!(object, Object::Sysctl(it) if it.key == name)
}

/// Settings of an interface that make it a proxy of one family.
pub fn proxying(family: Family, interface: &IfName) -> impl Fn(&Object) -> bool {
    move |object| match object {
        Object::Sysctl(it) => {
            let proxies = ["proxy_arp", "proxy_ndp", "proxy_delay"].contains(&it.key);
            proxies && it.family == family && it.interface.as_ref().is_none_or(|it| it == interface)
        }
        _ => false,
    }
}

/// The rule of one family.
pub fn rule(family: Family) -> impl Fn(&Object) -> bool {
    move |object| matches!(object, Object::Rule(it) if it.family == family)
}

/// The default route through the gateway.
pub fn default_route(object: &Object) -> bool {
    matches!(object, Object::Route(it) if matches!(it.hop, Hop::Gateway { .. }))
}

/// Routes of one family to those on the device itself.
pub fn device_route(family: Family, table: Option<u32>) -> impl Fn(&Object) -> bool {
    move |object| match object {
        Object::Route(it) => {
            matches!(it.hop, Hop::Device(_))
                && Family::of(it.destination.addr()) == family
                && table.is_none_or(|table| it.table == table)
        }
        _ => false,
    }
}

/// The elements of sets, and the rules that look them up, or drop (and count) what was not found there.
pub fn filters(plan: &Plan, family: TableFamily, sets: &[&str]) -> Vec<String> {
    let tables = plan.tables.iter().filter(|it| it.family == family);
    let mut lines: Vec<String> = tables.flat_map(|it| rules(it, sets)).collect();
    lines.extend(plan.elements.iter().filter(|it| sets.contains(&it.set.as_ref())).map(|it| format!("nft {it}")));
    lines
}

fn rules(table: &Group, sets: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for chain in &table.chains {
        let rules: Vec<_> = chain.rules.iter().map(ToString::to_string).collect();
        let looks_up =
            |rule: &String| rule.split(' ').any(|word| sets.iter().any(|set| word.strip_prefix('@') == Some(*set)));
        if !rules.iter().any(looks_up) {
            continue;
        }
        for rule in rules {
            if looks_up(&rule) || rule.starts_with("counter ") {
                lines.push(format!("nft add rule {} {} {} {rule}", table.family, crate::ruleset::TABLE, chain.name));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::setup::{neighbours, routed_sources, shared};

    #[test]
    fn rules_are_shown_with_the_sets_they_look_up() {
        let plan =
            Plan { tables: vec![Arc::clone(&shared::ARP), Arc::clone(&routed_sources::INET)], ..Plan::default() };
        let lines = filters(&plan, TableFamily::Arp, &[shared::ARP_SOURCE]);
        assert_eq!(
            lines,
            ["nft add rule arp snf-network output arp operation request arp saddr ip set oifname map @arp_source"]
        );
        let lines = filters(&plan, TableFamily::Inet, &[routed_sources::GUARDED, neighbours::SOURCES6]);
        assert_eq!(
            lines,
            [
                "nft add rule inet snf-network fragments ip frag-off & 0x3fff != 0 iifname @guarded \
                 iifname . ip saddr != @sources4 counter goto sources_drop",
                "nft add rule inet snf-network fragments exthdr frag exists iifname @guarded \
                 iifname . ip6 saddr != @sources6 counter goto sources_drop",
                "nft add rule inet snf-network prerouting iifname @guarded jump sources",
                "nft add rule inet snf-network sources iifname . ip6 saddr @sources6 goto advertised",
                "nft add rule inet snf-network sources counter goto sources_drop",
            ]
        );
    }
}
