#!/bin/sh
# A SYN that a TC egress program drops counts as local congestion: connect() gives up within seconds,
# however many retries tcp_syn_retries asks for. The same SYN dropped on the wire gets all of them.
#
# TC_ACT_SHOT makes dev_queue_xmit return NET_XMIT_DROP. The connection then probes for local
# resources every half second (TCP_RESOURCE_PROBE_INTERVAL), each probe counts as a retry, and the
# next retries are spent at once instead of after 1, 2, 4, 8 and 16 seconds.
#
# Seen on Linux 6.18.44: with tcp_syn_retries=4, 5.1 s for the drop by TC, 35.5 s on the wire.
# Needs root, and unshare. Exits with 0 while the drop by TC takes less than half of the other's time.
set -eu

folder=$(mktemp -d)
a=drop-a-$$ b=drop-b-$$
end() {
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
    umount "$folder/bpf" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT

cd "$folder"
python_version=3.11.2-6+deb12u9
apt-get -qq download iproute2=6.1.0-3 python3.11-minimal=$python_version \
    libpython3.11-minimal=$python_version libpython3.11-stdlib=$python_version
for package in ./*.deb; do dpkg-deb -x "$package" .; done
tc="$folder/sbin/tc" ip="$folder/bin/ip"
python() { PYTHONHOME="$folder/usr" "$folder/usr/bin/python3.11" "$@"; }
echo "Linux $(uname -r), $($tc -V), $(python --version)"

# A program of two instructions, r0 = TC_ACT_SHOT and exit, pinned at bpf/drop.
mkdir bpf
mount -t bpf bpf bpf
cat >load.py <<'END'
import ctypes, os, platform, struct
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(BPF, command, room, 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
program = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b"GPL")
SCHED_CLS, LOAD, PIN = 3, 5, 6
loaded = bpf(LOAD, struct.pack("<IIQQ", SCHED_CLS, 2, ctypes.addressof(program), ctypes.addressof(license)))
path = ctypes.create_string_buffer(b"bpf/drop")
bpf(PIN, struct.pack("<QI", ctypes.addressof(path), loaded))
END
python load.py
cat >connect.py <<'END'
import socket, time
began = time.monotonic()
try:
    socket.socket().connect(("192.0.2.2", 80))
except OSError:
    print("%.1f" % (time.monotonic() - began))
END

$ip netns add "$a"
$ip netns add "$b"
$ip link add eth0 netns "$a" type veth peer name eth0 netns "$b"
$ip -n "$a" address add 192.0.2.1/24 dev eth0
$ip -n "$b" address add 192.0.2.2/24 dev eth0
$ip -n "$a" link set eth0 up
$ip -n "$b" link set eth0 up
$ip netns exec "$a" sh -c 'echo 4 >/proc/sys/net/ipv4/tcp_syn_retries'
$tc -n "$a" qdisc add dev eth0 clsact
$tc -n "$b" qdisc add dev eth0 clsact
# ARP is resolved before anything is dropped.
$ip -n "$a" neighbour add 192.0.2.2 dev eth0 lladdr "$(
    $ip -n "$b" -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/'
)"

connect() { $ip netns exec "$a" env PYTHONHOME="$folder/usr" "$folder/usr/bin/python3.11" connect.py; }
$tc -n "$a" filter add dev eth0 egress protocol ip bpf da object-pinned bpf/drop
by_tc=$(connect)
$tc -n "$a" filter del dev eth0 egress
$tc -n "$b" filter add dev eth0 ingress protocol ip bpf da object-pinned bpf/drop
on_wire=$(connect)
echo "connect() gave up after $by_tc s where TC drops on the way out, and after $on_wire s where the other end drops"
[ "$(echo "$by_tc $on_wire" | awk '{print ($1 * 2 < $2)}')" = 1 ]
