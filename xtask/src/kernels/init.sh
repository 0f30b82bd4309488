#!/bin/dash
# The first program of a booted kernel: runs every step of /steps/list and says on the console how it
# went, in lines that begin with `sg:`.

# Busybox brings what the packages lack; its own shell would prefer its own ip.
export PATH=/usr/sbin:/usr/bin:/applets HOME=/root TERM=dumb SG_CTL=/steps/sg-ctl RUST_BACKTRACE=1
/bin/busybox mkdir -p /applets
/bin/busybox --install -s /applets
ln -sf dash /usr/bin/sh
ln -sf /steps/sg-ctl /usr/bin/sg-ctl
[ -e /usr/sbin/modprobe ] || ln -s ../bin/kmod /usr/sbin/modprobe

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
hostname kernel
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
echo root:x:0: >/etc/group
modprobe tun 2>/dev/null
ip link set lo up

# What the kernel says about its own faults; a machine that is only slow is no fault.
faults() {
    dmesg -c | grep -E 'WARNING: |BUG: |Oops|general protection|refcount_t|UBSAN|KASAN|unable to handle' |
        grep -vE 'soft lockup|stall|clocksource|workqueue'
}

# Where each process waits, for a step that does not end.
stacks() {
    for process in /proc/[0-9]*; do
        [ -s "$process/cmdline" ] || continue
        echo "--- $(tr '\0' ' ' <"$process/cmdline")"
        for thread in "$process"/task/*; do
            echo "thread $(cat "$thread/comm"): $(cat "$thread/wchan")"
            cat "$thread/stack"
        done
    done 2>/dev/null
}

# Everything that a step left running ends with it.
end_all() {
    kill -9 -1
    sleep 1
}

dmesg -c >/dev/null
echo "sg:ready $(uname -r)"
while read -r name limit <&3; do
    echo "sg:begin $name"
    rm -f /tmp/outcome
    # By a pipe, since programs speak otherwise to a terminal.
    { sh "/steps/$name.sh" 3<&- </dev/null 2>&1; echo $? >/tmp/outcome; } | cat &
    since=$(cut -d . -f 1 /proc/uptime)
    until [ -s /tmp/outcome ]; do
        sleep 0.2
        now=$(cut -d . -f 1 /proc/uptime)
        if [ $((now - since)) -ge "$limit" ]; then
            stacks
            echo timeout >/tmp/outcome
        fi
    done
    # What it printed last is on its way.
    sleep 0.5
    read -r outcome </tmp/outcome
    end_all 2>/dev/null
    faults >/tmp/faults && { cat /tmp/faults; outcome=fault; }
    echo
    echo "sg:end $name $outcome"
done 3</steps/list
echo "sg:over"
poweroff -f
