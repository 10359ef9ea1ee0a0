# Each way in which a firewall's unit changes the rules is followed by a repair.
repaired_after() {
    local before
    before=$(table)
    echo "# systemctl $*"
    systemctl "$@" || [ "$broken" = yes ] || die "systemctl $*"
    systemctl reset-failed nftables
    await in_sync
    [ "$(table)" != "$before" ] || die 'nothing was flushed, so this shows nothing'
}
broken=no
repaired_after start nftables
repaired_after restart nftables
repaired_after reload nftables
repaired_after stop nftables
repaired_after start nftables
cp /etc/nftables.conf /run/
echo nonsense >/etc/nftables.conf
broken=yes
repaired_after restart nftables
cp /run/nftables.conf /etc/
broken=no
repaired_after start nftables

# A start while a repair is under way: what it flushes is repaired, too.
for _ in 1 2 3; do
    systemctl restart nftables
    systemctl reset-failed nftables
done
await in_sync

for unit in ferm netfilter-persistent; do
    run=$(last_run)
    systemctl restart $unit
    await ran_since "$run"
    await in_sync
done
run=$(last_run)
systemctl reload ferm
await ran_since "$run"
await in_sync
