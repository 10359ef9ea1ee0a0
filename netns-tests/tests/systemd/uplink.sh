# Guests' packets never take another way while the uplink's unit is restarted: a default route stays in their table.
ip monitor route >/run/monitor &
monitor=$!
systemctl reload snf-network-node@eth1
systemctl restart snf-network-node@eth1
await in_sync
# What is to be seen in its output is there when this is.
ip route add 192.0.2.1 dev lo
await grep -q 192.0.2.1 /run/monitor
kill $monitor
cat /run/monitor
! grep -q '^Deleted unreachable default .*table 100' /run/monitor || die 'the way to other tables was open'
grep -q '^Deleted default .*table 100' /run/monitor || die 'the uplink was not taken down, so this shows nothing'
