//! Default routes whose hops are nexthop objects, as routing daemons make them.

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::topology::{OUTSIDE, OUTSIDE6, Site, Wanted};

pub const TESTS: &[Test] = &[("nexthop::default_routes_by_nexthop_objects", default_routes_by_nexthop_objects)];

const BARE: Wanted = Wanted { nodes: 1, uplink: false, tentative: false };

fn default_routes_by_nexthop_objects() -> Result<()> {
    let site = Site::with(BARE)?;
    let (node, netns) = (&site.node, &site.node.netns);
    netns.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    netns.set_sysctl("ipv4/conf/eth1/forwarding", "1")?;
    netns.ip_batch(
        "link set eth1 up\n\
         route add 10.0.0.0/24 dev eth1\n\
         route add 10.0.0.0/24 dev eth1 table 100\n\
         -6 route add 2001:db8:1::/64 dev eth1\n\
         -6 route add 2001:db8:1::/64 dev eth1 table 100\n\
         rule add iif eth1 lookup 100\n\
         -6 rule add iif eth1 lookup 100\n\
         nexthop add id 4 via 10.0.0.1 dev eth1 onlink\n\
         nexthop add id 6 via 2001:db8:1::1 dev eth1\n\
         nexthop add id 40 group 4\n\
         nexthop add id 60 group 6\n",
    )?;
    node.settled("eth1")?;
    for compatible in ["0", "1"] {
        netns.set_sysctl("ipv4/nexthop_compat_mode", compatible)?;
        for (of_four, of_six) in [(4, 6), (40, 60)] {
            netns.ip_batch(&format!(
                "route replace default nhid {of_four} table 100\n-6 route replace default nhid {of_six} table 100"
            ))?;
            for routing in ["ROUTING=rule", "ROUTING=mark"] {
                let case = || format!("nexthop {of_four}, {routing}, nexthop_compat_mode {compatible}");
                node.files.set(routing)?;
                let guest = node.guest("tap0", WEB1).with_context(case)?;
                guest.ping(OUTSIDE).with_context(case)?;
                guest.ping(OUTSIDE6).with_context(case)?;
                node.files.run(netns, &["status"], "tap0")?.succeeds().with_context(case)?;
                // The proxy entry is on the device of the nexthop.
                ensure!(netns.ip("-6 neigh show proxy dev eth1")?.contains(&WEB1.ip6.to_string()), "{}", case());
                node.nic("tap0", WEB1).ifdown()?.succeeds()?;
                node.unplug(guest, "tap0")?;
            }
        }
    }
    Ok(())
}
