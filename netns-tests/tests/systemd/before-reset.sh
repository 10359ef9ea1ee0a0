# Records survive a reset, and guests do not. At the next boot what is left of them goes before Ganeti starts guests.
cat >/etc/systemd/system/ganeti.service <<'EOF'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ls /var/lib/snf-network >/run/records; ip tuntap add tap1 mode tap'
[Install]
WantedBy=multi-user.target
EOF
systemctl enable ganeti
systemctl enable nftables
[ -e /var/lib/snf-network/tap1 ]
sync
