# A flush by hand is repaired by the timer, and by nothing before it.
nft flush ruleset
sleep 60
! in_sync || die 'something else repairs it, so this does not show what the timer does'
systemctl start snf-network-reconcile.timer
await in_sync
without_timer
