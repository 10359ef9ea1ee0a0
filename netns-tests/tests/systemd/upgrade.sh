# An upgrade changes nothing for running guests. Links of 1.0.0 go.
mkdir -p /etc/systemd/system/nftables.service.wants
ln -s /usr/lib/systemd/system/snf-network-reconcile.service /etc/systemd/system/nftables.service.wants/
before="$(table; ip rule; ip route show table 100)"
run=$(last_run)

dpkg -i $payload/new.deb >/run/said 2>&1 || { cat /run/said; exit 1; }
cat /run/said
! grep -q 'Could not' /run/said || die 'a unit does not start'
ran_since "$run" || die 'no run after the upgrade'
systemctl is-active snf-network-reconcile.timer
without_timer
[ "$(table; ip rule; ip route show table 100)" = "$before" ] || die 'the upgrade changed the kernel'
in_sync
systemctl is-enabled snf-network-reconcile.service snf-network-reconcile.timer
[ ! -e /etc/systemd/system/nftables.service.wants/snf-network-reconcile.service ] || die 'an old link is left'
