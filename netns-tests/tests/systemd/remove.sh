# Removal with running guests warns, and they stay what they are; then the package takes them over again.
systemctl start systemd-networkd
await in_sync
rules=$(ip rule)
dpkg -r snf-network >/run/said 2>&1 || { cat /run/said; exit 1; }
cat /run/said
grep -q 'warning: guests still use tap1 tap2' /run/said || die 'no warning'
systemctl restart systemd-networkd
[ "$(ip rule)" = "$rules" ] || die "networkd removed rules of guests: $(ip rule)"
dpkg -P snf-network >/run/said 2>&1
cat /run/said
grep -q 'warning: guests still use tap1 tap2' /run/said || die 'no warning'
[ -e /var/lib/snf-network/tap1 ]

dpkg -i $payload/new.deb
without_timer
in_sync
[ ! -e /run/systemd/networkd.conf.d/snf-network.conf ]

# Without guests nothing is left.
ip link del tap1
ip link del tap2
snf-network gc
dpkg -P snf-network >/run/said 2>&1
cat /run/said
! grep -q warning: /run/said || die 'it warns of guests that are gone'
[ ! -e /var/lib/snf-network ]
! systemctl list-unit-files | grep snf-network- || die 'units are left'
! { ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; } | grep -E 'proto 21[78]' || die 'left'
