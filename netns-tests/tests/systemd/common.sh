# What all scenes use. The machine's clock skips what it would sleep, so waiting costs no real time.
set -eu
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
payload=/run/payload
# A serial line is slow: only what failed is told.
exec 3>&1 >/run/output 2>&1
trap 'status=$?; [ $status = 0 ] || tail -n 100 /run/output >&3' EXIT

die() {
    echo "$*"
    exit 1
}

# Waits up to a quarter of an hour for a command to succeed.
await() {
    local pause=1 waited=0
    until "$@" >/dev/null 2>&1; do
        [ $waited -lt 900 ] || die "in vain: $*"
        sleep $pause
        waited=$((waited + pause))
        pause=$((pause * 2))
    done
}

in_sync() {
    snf-network status
}

last_run() {
    systemctl show --property InvocationID --value snf-network-reconcile
}

ran_since() {
    [ "$(last_run)" != "$1" ]
}

# The number of our table: another one after a flush and a repair.
table() {
    nft -a list ruleset | sed -n 's/^table inet snf-network { # handle //p'
}

without_timer() {
    systemctl stop snf-network-reconcile.timer
}

# As Ganeti calls it for a NIC.
ifup() (
    export INTERFACE="$1" INTERFACE_INDEX=0 INTERFACE_NAME=nic0 TAGS=
    export INSTANCE="$1.example.org" INTERFACE_UUID="00000000-0000-0000-0000-00000000000${1#tap}"
    export MAC="aa:00:00:00:00:0${1#tap}"
    case $1 in
    tap1)
        export MODE=routed LINK=100 IP=10.0.0.11 NETWORK_NAME=public NETWORK_TAGS=ip-less-routed
        export NETWORK_SUBNET=10.0.0.0/24 NETWORK_GATEWAY=10.0.0.1
        export NETWORK_SUBNET6=2001:db8:1::/64 NETWORK_GATEWAY6=2001:db8:1::1
        ;;
    tap2)
        export MODE=bridged LINK=br0 BRIDGE=br0 IP=10.0.9.12 NETWORK_NAME=private
        export NETWORK_TAGS='private-filtered strict-filtered' NETWORK_SUBNET=10.0.9.0/24 NETWORK_MAC_PREFIX=aa:00:00
        ;;
    esac
    /etc/ganeti/kvm-vif-bridge "$1"
)

guests() {
    for tap in tap1 tap2; do
        [ -e /sys/class/net/$tap ] || ip tuntap add $tap mode tap
        ifup $tap
    done
    in_sync
}
