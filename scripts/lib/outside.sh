# shellcheck shell=bash
# A host of its own in network namespaces, with a world outside of it that nobody else sees.

# make_outside: needs root. Sets outside_host, the namespace of the host; its resolv.conf is
# /etc/netns/NAME/resolv.conf, which the tests may write. The world, outside_world, has
# 203.0.113.9, 2001:db8:9::9 and, for names, 203.0.113.53.
make_outside() {
    outside_host=podspawn-h$$
    outside_world=podspawn-w$$
    local world=$outside_world pid
    ip netns add "$outside_host" && on_exit ip netns del "$outside_host"
    ip netns add "$world" && on_exit ip netns del "$world"
    ip link add eth0 netns "$outside_host" type veth peer name eth0 netns "$world"
    for name in "$outside_host" "$world"; do
        ip -n "$name" link set lo up
    done
    ip -n "$outside_host" addr add 198.51.100.2/24 dev eth0
    ip -n "$outside_host" addr add 2001:db8:51::2/64 dev eth0 nodad
    # A second address, as of another network: the pod does not share it.
    ip -n "$outside_host" addr add 198.51.100.77/24 dev eth0
    ip -n "$world" addr add 198.51.100.1/24 dev eth0
    ip -n "$world" addr add 2001:db8:51::1/64 dev eth0 nodad
    ip -n "$outside_host" link set eth0 up
    ip -n "$world" link set eth0 up
    for address in 203.0.113.9/32 203.0.113.53/32 2001:db8:9::9/128; do
        ip -n "$world" addr add "$address" dev lo
    done
    ip -n "$outside_host" route add default via 198.51.100.1
    ip -n "$outside_host" -6 route add default via 2001:db8:51::1
    # For a name server on the host that an ordinary user runs.
    ip netns exec "$outside_host" sysctl -qw net.ipv4.ip_unprivileged_port_start=53
    mkdir -p "/etc/netns/$outside_host" && on_exit rm -rf "/etc/netns/$outside_host"
    echo 'nameserver 203.0.113.53' >"/etc/netns/$outside_host/resolv.conf"
    chmod 666 "/etc/netns/$outside_host/resolv.conf"
    ip netns exec "$world" python3 "${root_dir:?}/scripts/lib/outside.py" "${stage:?}/outside.ready" >"${stage:?}/outside.log" 2>&1 &
    pid=$!
    on_exit stop_pid "$pid"
    wait_until 10 test -e "${stage:?}/outside.ready" || die "the world outside did not begin: $(cat "${stage:?}/outside.log")"
}
