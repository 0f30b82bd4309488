# What one protected interface with a small policy takes of the kernel's memory.
set -eu

value() { grep "^$1:" /proc/meminfo | tr -s ' ' | cut -d ' ' -f 2; }
# Free memory moves by itself; what has been freed lately is counted as free first.
settle() { sync; echo 3 >/proc/sys/vm/drop_caches; sleep 2; }

ip netns add web
ip link add eth0 netns web type veth peer name eth0
ip -n web address add 198.51.100.10/24 dev eth0
ip -n web link set eth0 up
cat >/tmp/policy.yaml <<POLICY
groups:
  web:
    ingress:
      - {service: https, from: [0.0.0.0/0, '::/0']}
      - {service: ssh, from: [198.51.100.7/32]}
interfaces:
  eth0: {groups: [web]}
POLICY
# Modules and caches that the first use brings are not the interface's.
ip netns exec web sg-ctl apply /tmp/policy.yaml
ip netns exec web sg-ctl detach eth0

settle
free=$(value MemAvailable)
per_cpu=$(value Percpu)
ip netns exec web sg-ctl attach eth0 --group web
settle
all=$((free - $(value MemAvailable)))
per_cpu=$(($(value Percpu) - per_cpu))

# Tables of one kind have one name, of which the kernel keeps 15 letters.
sum=0
flows=0
name=
previous=
for word in $(bpftool map show | tr '\n' ' '); do
    case $previous in
    name) name=$word ;;
    memlock)
        kib=$((${word%B} / 1024))
        case $name in
        FLOWS | OTHER_FLOWS) flows=$((flows + kib)) ;;
        *) sum=$((sum + kib)) ;;
        esac
        ;;
    esac
    previous=$word
done
bpftool map show
echo "memory: $sum $flows $per_cpu $all"
