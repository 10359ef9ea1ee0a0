# A fresh installation works at once, and so do the guests' uplink and two guests.
systemctl is-system-running --wait || true
mkdir -p $payload
tar -C $payload -xf /dev/vdb
cp $payload/10-snf-network-*.network /etc/systemd/network/
cp $payload/snf-network-node-eth1 /etc/default/
cat >/etc/network/interfaces.d/br0 <<'EOF'
auto br0
iface br0 inet manual
    pre-up ip link add br0 type bridge && ip link set br0 up
    post-down ip link del br0
EOF
systemctl restart networking

dpkg -i $payload/old.deb >/run/said 2>&1 || { cat /run/said; exit 1; }
cat /run/said
! grep -q 'Could not' /run/said || die 'a unit does not start'
[ "$(systemctl show -P Result snf-network-reconcile)" = success ]
[ "$(systemctl show -P ExecMainStartTimestampMonotonic snf-network-reconcile)" -gt 0 ]
systemctl is-enabled snf-network-reconcile.service snf-network-reconcile.timer
systemctl is-active snf-network-reconcile.timer
without_timer

systemctl enable --now snf-network-node@eth1
guests
