# A kernel that lacks what sg needs: each command says so in one sentence, and leaves nothing behind.
set -u
fail() { echo "FAILED: $*"; exit 1; }

ip netns add web
ip link add eth0 netns web type veth peer name eth0
cat >/tmp/policy.yaml <<POLICY
groups:
  web:
    ingress:
      - {service: https, from: [0.0.0.0/0]}
interfaces:
  eth0: {groups: [web]}
POLICY

ip netns exec web sg-ctl doctor
[ $? != 0 ] || fail "doctor finds nothing wrong"
ip netns exec web sg-ctl apply /tmp/policy.yaml >/tmp/out 2>/tmp/said
code=$?
cat /tmp/out
echo "refusal: $(cat /tmp/said)"
[ $code = 2 ] || fail "the exit code is $code and not 2"
[ "$(wc -l </tmp/said)" = 1 ] || fail "it takes more than one line to say"
! grep -qi 'permission denied\|takes root' /tmp/said || fail "it is no matter of permissions"
[ -z "$(ip netns exec web bpftool net show | grep -i sg_)" ] || fail "programs are left"
exit 0
