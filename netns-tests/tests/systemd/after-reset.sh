# As before-reset.sh says.
systemctl is-system-running --wait || true
! systemctl --failed --plain --no-legend | grep -E 'snf-network|nftables|ganeti' || die 'a unit failed at boot'
cat /run/records
! grep -q '^tap' /run/records || die 'records of old guests were there when Ganeti started'
[ "$(systemctl show -P Result snf-network-reconcile)" = success ]
without_timer
! ip rule | grep 'iif tap1' || die 'the new TAP has a rule of the old guest'
! journalctl -b --no-pager | grep -i 'ordering cycle' || die 'units wait for each other'
mkdir -p $payload
tar -C $payload -xf /dev/vdb
systemctl is-active snf-network-node@eth1
in_sync
guests
