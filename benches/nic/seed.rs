//! The same end state by others' means: the seed document's commands as one shell script, and the best that can be scripted.

use super::world::{GATEWAY, Number, Setup};

/// Scripts for one NIC.
pub struct Scripts {
    /// Run once on the node.
    pub base: String,
    /// For sh.
    pub up: String,
    /// For sh.
    pub down: String,
}

/// TAP_CONSTANT_MAC.
const TAP_MAC: &str = "cc:47:52:4e:45:54";

/// The commands of the seed document, one process each.
pub fn commands(setup: Setup, nic: Number) -> Option<Scripts> {
    let (tap, mac, bridge) = (nic.tap(), nic.mac(), nic.bridge());
    let (ip, ip6) = (nic.address(), nic.address6());
    let (base, up, down) = match setup {
        Setup::Routed => (
            // arping wants its source to be an address of the node.
            "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind\n".to_owned(),
            format!(
                "ip link set dev {tap} address {TAP_MAC}\n\
                 ip link set dev {tap} up\n\
                 ip rule add dev {tap} table 100\n\
                 ip route replace {ip} dev {tap} proto static table 100\n\
                 arptables -I OUTPUT -o {tap} --opcode 1 -j mangle --mangle-ip-s {GATEWAY}\n\
                 echo 1 > /proc/sys/net/ipv4/conf/{tap}/proxy_arp\n\
                 echo 1 > /proc/sys/net/ipv4/conf/{tap}/forwarding\n\
                 ip -6 rule add dev {tap} table 100\n\
                 ip -6 route replace {ip6} dev {tap} proto static table 100\n\
                 echo 1 > /proc/sys/net/ipv6/conf/{tap}/forwarding\n\
                 echo 0 > /proc/sys/net/ipv6/conf/{tap}/proxy_ndp\n\
                 ip -6 neigh add proxy {ip6} dev eth1\n\
                 iptables -t mangle -A PREROUTING -i {tap} ! -s {ip} -j DROP\n\
                 ip6tables -t mangle -I PREROUTING -i {tap} ! -s {ip6} -j DROP\n\
                 ip6tables -t mangle -I PREROUTING -i {tap} -s fe80::/10 -j ACCEPT\n\
                 arping -q -U -c 1 -I eth1 -s {ip} {ip} >/dev/null 2>&1 &\n"
            ),
            format!(
                "ip6tables -t mangle -D PREROUTING -i {tap} -s fe80::/10 -j ACCEPT\n\
                 ip6tables -t mangle -D PREROUTING -i {tap} ! -s {ip6} -j DROP\n\
                 iptables -t mangle -D PREROUTING -i {tap} ! -s {ip} -j DROP\n\
                 ip -6 neigh del proxy {ip6} dev eth1\n\
                 ip -6 route del {ip6} dev {tap} table 100\n\
                 ip -6 rule del dev {tap} table 100\n\
                 arptables -D OUTPUT -o {tap} --opcode 1 -j mangle --mangle-ip-s {GATEWAY}\n\
                 ip route del {ip} dev {tap} table 100\n\
                 ip rule del dev {tap} table 100\n\
                 ip link set dev {tap} down\n"
            ),
        ),
        Setup::Filtered => (
            String::new(),
            format!(
                "ebtables -t filter -N FROM{tap}\n\
                 ebtables -t filter -N TO{tap}\n\
                 ebtables -t filter -A INPUT -i {tap} -j FROM{tap}\n\
                 ebtables -t filter -A OUTPUT -o {tap} -j TO{tap}\n\
                 ebtables -t filter -A FORWARD -i {tap} -j FROM{tap}\n\
                 ebtables -t filter -A FORWARD -o {tap} -j TO{tap}\n\
                 ebtables -t filter -A FROM{tap} -s ! {mac} -j DROP\n\
                 ebtables -t filter -A TO{tap} -s ! aa:55:60:0:0:0/ff:ff:f0:0:0:0 -j DROP\n\
                 ip link set dev {tap} address fe:55:60:00:00:00\n\
                 ip link set dev {tap} master {bridge}\n\
                 ip link set dev {tap} up\n"
            ),
            format!(
                "ip link set dev {tap} down\n\
                 ip link set dev {tap} nomaster\n\
                 ebtables -t filter -D INPUT -i {tap} -j FROM{tap}\n\
                 ebtables -t filter -D OUTPUT -o {tap} -j TO{tap}\n\
                 ebtables -t filter -D FORWARD -i {tap} -j FROM{tap}\n\
                 ebtables -t filter -D FORWARD -o {tap} -j TO{tap}\n\
                 ebtables -t filter -F FROM{tap}\n\
                 ebtables -t filter -F TO{tap}\n\
                 ebtables -t filter -X FROM{tap}\n\
                 ebtables -t filter -X TO{tap}\n"
            ),
        ),
        Setup::ByRule | Setup::Strict | Setup::Bridged => return None,
    };
    Some(Scripts { base, up: errexit(&up), down: errexit(&down) })
}

/// Sets made beforehand, one `ip -batch` per family and one `nft -f`: what a careful administrator would write.
pub fn batches(setup: Setup, nic: Number) -> Option<Scripts> {
    let (tap, mac, bridge) = (nic.tap(), nic.mac(), nic.bridge());
    let (ip, ip6) = (nic.address(), nic.address6());
    let elements = |verb: &str, elements: &[(&str, &str, String)]| {
        let lines: String = elements
            .iter()
            .map(|(family, set, element)| {
                let key = if verb == "delete" { element.split(" : ").next().unwrap_or_default() } else { element };
                format!("{verb} element {family} scripted {set} {{ {key} }}\n")
            })
            .collect();
        format!("nft -f - <<'EOF'\n{lines}EOF\n")
    };
    let (base, own, up, down) = match setup {
        Setup::Routed => (
            "nft -f - <<'EOF'\n\
             table arp scripted {\n\
             map gateways { type ifname : ipv4_addr; }\n\
             chain output { type filter hook output priority 0; arp operation request arp saddr ip set oifname map @gateways; }\n\
             }\n\
             table inet scripted {\n\
             set guarded { type ifname; }\n\
             set sources4 { type ifname . ipv4_addr; }\n\
             set sources6 { type ifname . ipv6_addr; }\n\
             chain prerouting { type filter hook prerouting priority -140; iifname @guarded jump sources; }\n\
             chain sources { iifname . ip saddr @sources4 return; iifname . ip6 saddr @sources6 return; \
             ip6 saddr fe80::/10 return; drop; }\n\
             }\nEOF\n"
                .to_owned(),
            vec![
                ("arp", "gateways", format!("{tap} : {GATEWAY}")),
                ("inet", "guarded", tap.clone()),
                ("inet", "sources4", format!("{tap} . {ip}")),
                ("inet", "sources6", format!("{tap} . {ip6}")),
            ],
            format!(
                "for it in 4/conf/{tap}/proxy_arp=1 4/conf/{tap}/forwarding=1 6/conf/{tap}/forwarding=1 6/conf/{tap}/proxy_ndp=0; do\n\
                 echo ${{it#*=}} > /proc/sys/net/ipv${{it%=*}}; done\n\
                 ip -batch - <<'EOF'\n\
                 link set dev {tap} address {TAP_MAC}\n\
                 rule add iif {tap} table 100 pref 20100\n\
                 link set dev {tap} up\n\
                 route replace {ip} dev {tap} proto static table 100\n\
                 EOF\n\
                 ip -6 -batch - <<'EOF'\n\
                 rule add iif {tap} table 100 pref 20100\n\
                 route replace {ip6} dev {tap} proto static table 100\n\
                 neigh add proxy {ip6} dev eth1\n\
                 EOF\n\
                 arping -q -U -c 1 -I eth1 -s {ip} {ip} >/dev/null 2>&1 &\n"
            ),
            format!(
                "ip -batch - <<'EOF'\n\
                 link set dev {tap} down\n\
                 rule del iif {tap} table 100 pref 20100\n\
                 EOF\n\
                 ip -6 -batch - <<'EOF'\n\
                 rule del iif {tap} table 100 pref 20100\n\
                 neigh del proxy {ip6} dev eth1\n\
                 EOF\n"
            ),
        ),
        Setup::Filtered => (
            "nft -f - <<'EOF'\n\
             table bridge scripted {\n\
             set filtered { type ifname; }\n\
             set from { type ifname . ether_addr; }\n\
             set to { type ifname . ether_addr; }\n\
             chain FROMTAP { iifname . ether saddr @from return; drop; }\n\
             chain TOTAP { oifname . ether saddr & ff:ff:f0:00:00:00 @to return; drop; }\n\
             chain prerouting { type filter hook prerouting priority -300; iifname @filtered jump FROMTAP; }\n\
             chain forward { type filter hook forward priority -200; oifname @filtered jump TOTAP; }\n\
             chain output { type filter hook output priority 200; oifname @filtered jump TOTAP; }\n\
             }\nEOF\n"
                .to_owned(),
            vec![
                ("bridge", "filtered", tap.clone()),
                ("bridge", "from", format!("{tap} . {mac}")),
                ("bridge", "to", format!("{tap} . aa:55:60:00:00:00")),
            ],
            format!("ip link set dev {tap} address fe:55:60:00:00:00 master {bridge} up\n"),
            format!("ip link set dev {tap} nomaster down\n"),
        ),
        Setup::ByRule | Setup::Strict | Setup::Bridged => return None,
    };
    let up = elements("add", &own) + &up;
    let down = down + &elements("delete", &own);
    Some(Scripts { base, up: errexit(&up), down: errexit(&down) })
}

fn errexit(script: &str) -> String {
    format!("set -e\n{script}")
}

/// The seed's rules of NICs that are only rules, as lines for `ip -batch`, `iptables-restore`, `ip6tables-restore` and
/// `ebtables-restore`: their number is what a packet's way is measured against.
pub struct Phantoms {
    /// Rules by interface.
    pub ip: String,
    /// Source checks.
    pub iptables: [String; 2],
    /// Chains of each TAP.
    pub ebtables: String,
}

/// Of NICs 1 to this one.
pub fn phantoms(setup: Setup, nics: u16) -> Phantoms {
    let mut all = Phantoms { ip: String::new(), iptables: [String::new(), String::new()], ebtables: String::new() };
    let numbers = (1..=nics).map(Number);
    if setup == Setup::Routed {
        for nic in numbers {
            all.ip += &format!("rule add iif {} table 100\n", nic.tap());
            all.iptables[0] += &format!("-A PREROUTING -i {} ! -s {} -j DROP\n", nic.tap(), nic.address());
            all.iptables[1] += &format!("-A PREROUTING -i {} ! -s {} -j DROP\n", nic.tap(), nic.address6());
        }
    } else {
        let (mut chains, mut rules) = (String::new(), String::new());
        for nic in numbers {
            let tap = nic.tap();
            chains += &format!(":FROM{tap} ACCEPT\n:TO{tap} ACCEPT\n");
            rules += &format!(
                "-A FORWARD -i {tap} -j FROM{tap}\n-A FORWARD -o {tap} -j TO{tap}\n-A FROM{tap} -s ! {} -j DROP\n\
                 -A TO{tap} -s ! aa:55:60:0:0:0/ff:ff:f0:0:0:0 -j DROP\n",
                nic.mac()
            );
        }
        all.ebtables = chains + &rules;
    }
    all
}
