# So is each restart of what configures interfaces. systemd-networkd leaves our rules and routes.
guarded=$(ip rule)
run=$(last_run)
systemctl start systemd-networkd
await ran_since "$run"
for verb in restart reload; do
    run=$(last_run)
    systemctl $verb systemd-networkd
    await ran_since "$run"
    await in_sync
    [ "$(ip rule)" = "$guarded" ] || die "$verb of networkd changed the rules: $(ip rule)"
done

# ifupdown makes the bridge anew: the guest's port comes back into it.
run=$(last_run)
systemctl restart networking
await ran_since "$run"
await in_sync
ip -br link show master br0 | grep -q ^tap2 || die 'the port is not in its bridge'

if command -v nmcli; then
    cp $payload/snf-network.conf /etc/NetworkManager/conf.d/
    systemctl restart NetworkManager
    for device in eth1 tap1 tap2; do
        await sh -c "nmcli -t -f DEVICE,STATE device | grep -q ^$device:unmanaged"
    done
    in_sync
fi
