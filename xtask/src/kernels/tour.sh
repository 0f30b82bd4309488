# Two machines on one wire, protected and let go again by the commands that a user types.
set -eu

connects() { laptop timeout 4 nc -w 2 198.51.100.10 "$1" </dev/null >/dev/null; }
laptop() { ip netns exec laptop "$@"; }
web() { ip netns exec web "$@"; }
fail() { echo "FAILED: $*"; exit 1; }

ip netns add web
ip netns add laptop
ip link add eth0 netns web type veth peer name eth0 netns laptop
ip -n web address add 198.51.100.10/24 dev eth0
ip -n laptop address add 198.51.100.7/24 dev eth0
for machine in web laptop; do
    ip -n $machine link set lo up
    ip -n $machine link set eth0 up
done
for port in 22 80 443; do
    web nc -ll -p $port -e true &
done
until connects 22; do sleep 0.2; done

cat >/tmp/policy.yaml <<POLICY
groups:
  web:
    ingress:
      - {service: https, from: [0.0.0.0/0, '::/0']}
      - {service: ssh, from: [198.51.100.7/32]}
interfaces:
  eth0: {groups: [web]}
POLICY

echo "--- doctor, before anything is attached"
web sg-ctl doctor || [ $? = 1 ] || fail "doctor"
web sg-ctl apply /tmp/policy.yaml
web sg-ctl status
connects 22 || fail "port 22 is allowed and does not connect"
connects 443 || fail "port 443 is allowed and does not connect"
connects 80 && fail "port 80 connects though no rule allows it"
web sg-ctl verify
web sg-ctl restore
web sg-ctl verify
echo "--- doctor, with a protected interface"
web sg-ctl doctor || [ $? = 1 ] || fail "doctor"
web sg-ctl stats
web sg-ctl explain eth0 ingress tcp 198.51.100.7:50000 :80 && fail "explain says that port 80 passes"
web sg-ctl detach eth0
connects 80 || fail "port 80 does not connect after detach"
ip -n web -details link show eth0
echo "--- all of it held"
