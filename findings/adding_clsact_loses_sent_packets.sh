#!/bin/sh
# Adding or removing a clsact queueing discipline loses packets that the device sends.
#
# clsact has no queue: it only gives packets to filters. Yet the kernel deactivates all transmit
# queues of a device that is up while one is added or removed (`qdisc_graft` of net/sched/sch_api.c
# calls dev_deactivate and dev_activate for ingress disciplines too), and drops what is sent in
# between. TCX links, since Linux 6.6, are attached without that.
#
# Needs root. Exits with 0 while it is so: packets are lost with the changes, and none without.
set -eu

folder=$(mktemp -d)
a=clsact-a-$$ b=clsact-b-$$
end() {
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT

cd "$folder"
apt-get -qq download iproute2=6.1.0-3 iputils-ping=3:20221126-1+deb12u1
for package in ./*.deb; do dpkg-deb -x "$package" .; done
tc="$folder/sbin/tc" ip="$folder/bin/ip" ping="$folder/bin/ping"
echo "Linux $(uname -r), $($tc -V), $($ping -V)"

$ip netns add "$a"
$ip netns add "$b"
$ip link add eth0 netns "$a" type veth peer name eth0 netns "$b"
$ip -n "$a" address add 192.0.2.1/24 dev eth0
$ip -n "$b" address add 192.0.2.2/24 dev eth0
$ip -n "$a" link set eth0 up
$ip -n "$b" link set eth0 up
sleep 2

lost() {
    "$ip" netns exec "$a" "$ping" -q -i 0.002 -c 2000 -W 2 192.0.2.2 >ping.txt &
    waiting=$!
    "$@"
    wait $waiting || true
    sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' ping.txt |
        while read -r sent received; do echo $((sent - received)); done
}
changes() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        $tc -n "$a" qdisc add dev eth0 clsact
        sleep 0.05
        $tc -n "$a" qdisc del dev eth0 clsact
        sleep 0.05
    done
}

without=$(lost true)
with=$(lost changes)
echo "lost of 2000 echo requests: $without without changes, $with while a clsact was added and removed 20 times"
[ "$without" = 0 ] && [ "$with" -gt 0 ]
