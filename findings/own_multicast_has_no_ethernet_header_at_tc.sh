#!/bin/sh
# A machine's own multicast comes back to its own listeners through TC ingress without an Ethernet
# header, on a device whose other frames all have one.
#
# dev_loopback_xmit() pulls the copy to its network header and resets its MAC header to there, so that
# mac_len is 0 and TC, which pushes mac_len bytes back, has nothing to push. A program that reads
# offset 12 as an EtherType reads an address of the IP header instead. Only skb->pkt_type tells:
# it is PACKET_LOOPBACK (5).
#
# Seen on Linux 6.18.44: the copy begins with 45 00 (IPv4), a broadcast from the other end with ff ff.
# Needs root. Exits with 0 while it is so.
set -eu

folder=$(mktemp -d)
a=loopback-a-$$ b=loopback-b-$$
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
export PYTHONHOME="$folder/usr"
python="$folder/usr/bin/python3.11"
echo "Linux $(uname -r), $($tc -V), $($python --version)"
mkdir bpf
mount -t bpf bpf bpf

cat >bpf.py <<'END'
import ctypes, os, platform, struct
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(BPF, command, room, 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def place(data):
    place.kept = getattr(place, "kept", []) + [data]
    return ctypes.addressof(data)
def pin(descriptor, path):
    bpf(6, struct.pack("<QI", place(ctypes.create_string_buffer(path)), descriptor))
def value(table, key):
    key, room = ctypes.create_string_buffer(struct.pack("<I", key), 4), ctypes.create_string_buffer(4)
    bpf(1, struct.pack("<I4xQQ", table, place(key), place(room)))
    return room.raw
END
cat >load.py <<'END'
# Keeps the first four bytes of the last packet of each skb->pkt_type (0 to 7) in an array.
from bpf import *
ARRAY, SCHED_CLS = 2, 3
table = bpf(0, struct.pack("<IIII", ARRAY, 4, 4, 8))
def insn(code, dst, src, off, imm):
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)
program = b"".join([
    insn(0xBF, 6, 1, 0, 0),              # r6 = skb
    insn(0x61, 7, 6, 4, 0),              # r7 = skb->pkt_type
    insn(0x57, 7, 0, 0, 7),
    insn(0x63, 10, 7, -8, 0),            # key
    insn(0x62, 10, 0, -4, 0),            # value
    insn(0xBF, 1, 6, 0, 0),
    insn(0xB7, 2, 0, 0, 0),
    insn(0xBF, 3, 10, 0, 0),
    insn(0x07, 3, 0, 0, -4),
    insn(0xB7, 4, 0, 0, 4),
    insn(0x85, 0, 0, 0, 26),             # bpf_skb_load_bytes(skb, 0, value, 4)
    insn(0x18, 1, 1, 0, table), insn(0, 0, 0, 0, 0),
    insn(0xBF, 2, 10, 0, 0),
    insn(0x07, 2, 0, 0, -8),
    insn(0xBF, 3, 10, 0, 0),
    insn(0x07, 3, 0, 0, -4),
    insn(0xB7, 4, 0, 0, 0),
    insn(0x85, 0, 0, 0, 2),              # bpf_map_update_elem
    insn(0xB7, 0, 0, 0, 0),              # TC_ACT_OK
    insn(0x95, 0, 0, 0, 0),
])
code, license = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
pin(bpf(5, struct.pack("<IIQQ", SCHED_CLS, len(program) // 8, place(code), place(license))), b"bpf/look")
pin(table, b"bpf/seen")
END
cat >read.py <<'END'
from bpf import *
table = bpf(7, struct.pack("<Q", place(ctypes.create_string_buffer(b"bpf/seen"))))
for name, number in (("broadcast", 1), ("loopback", 5)):
    print(name, value(table, number).hex())
END
cat >send.py <<'END'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == "broadcast":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(b"from the other end", ("192.0.2.255", 4000))
else:
    here = socket.inet_aton("192.0.2.1")
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + here)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    s.sendto(b"to ourselves", ("239.1.2.3", 4000))
END

$python load.py
$ip netns add "$a"
$ip netns add "$b"
$ip link add eth0 netns "$a" type veth peer name eth0 netns "$b"
$ip -n "$a" address add 192.0.2.1/24 brd + dev eth0
$ip -n "$b" address add 192.0.2.2/24 brd + dev eth0
$ip -n "$a" link set eth0 up
$ip -n "$b" link set eth0 up
$tc -n "$a" qdisc add dev eth0 clsact
$tc -n "$a" filter add dev eth0 ingress bpf da object-pinned bpf/look
$ip netns exec "$b" "$python" send.py broadcast
$ip netns exec "$a" "$python" send.py multicast
sleep 1
seen=$($python read.py)
echo "first bytes of what TC ingress of a veth device was given, by skb->pkt_type:"
echo "$seen"
[ "$seen" = "broadcast ffffffff
loopback 45000028" ]
