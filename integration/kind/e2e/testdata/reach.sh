# SPDX-License-Identifier: Apache-2.0
#
# What there is on the API server's way to the door, in its order, as seen from where it stands: the control plane's node. Bash reads it
# there. Nothing here changes anything, and what fails says so and is passed over.
set +eu
export KUBECONFIG=/etc/kubernetes/admin.conf
api=v1alpha1.reader.metsuke.dev
of="-n metsuke-system"
service=$(kubectl $of get service metsuke-controller -o jsonpath='{.spec.clusterIP}')
pods=$(kubectl $of get pods -l app.kubernetes.io/name=metsuke-controller -o jsonpath='{.items[*].status.podIP}')

heading() { printf '\n== %s\n' "$*"; }
bounded() { timeout 20 "$@" 2>&1 | tail -n "${lines:-60}"; }
since() { echo "$(((${EPOCHREALTIME/./} - ${1/./}) / 1000)) ms"; }

# connect WHAT ADDRESS PORT [IN...]: does a connection come about? IN is what the attempt is made by, such as ip netns exec.
connect() {
  local what=$1 address=$2 port=$3 begun=$EPOCHREALTIME said
  shift 3
  if said=$("$@" timeout 5 bash -c "</dev/tcp/$address/$port" 2>&1); then said=connected; fi
  echo "$what, $address:$port: ${said:-nothing in 5 s}, $(since "$begun")"
}

# ask WHAT ADDRESS PORT: what the API server asks to see whether the API is there, with its certificate, and without looking at the
# other's, as it does; it waits for 5 s.
ask() {
  local begun=$EPOCHREALTIME said
  said=$(printf 'GET /apis/reader.metsuke.dev/v1alpha1 HTTP/1.1\r\nHost: door\r\nX-Remote-User: system:kube-aggregator\r\nX-Remote-Group: system:masters\r\nConnection: close\r\n\r\n' |
    timeout 20 socat -,ignoreeof "OPENSSL:$2:$3,verify=0,cert=/etc/kubernetes/pki/front-proxy-client.crt,key=/etc/kubernetes/pki/front-proxy-client.key" 2>&1 |
    tr -d '\r')
  said=$(grep -m 1 '^HTTP/' <<<"$said" || sed -n 1p <<<"$said") # what is no answer is an error of socat's
  echo "$1, $2:$3: ${said:-nothing in 20 s}, $(since "$begun")"
}

heading "what the API server says of it"
bounded kubectl get apiservice "$api" -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason} since {.lastTransitionTime}: {.message}{"\n"}{end}'
echo "certificates in caBundle: $(kubectl get apiservice "$api" -o jsonpath='{.spec.caBundle}' | base64 -d | grep -c BEGIN)"

heading "the Service, what is behind it, and the pods"
bounded kubectl $of get service,pods -o wide
bounded kubectl $of get endpointslices -l kubernetes.io/service-name=metsuke-controller \
  -o jsonpath='{range .items[*]}{.metadata.name} ports={.ports} {range .endpoints[*]}{.addresses} {.conditions} {end}{"\n"}{end}'

heading "the door, asked past the Service, and by it"
for pod in $pods; do ask "a pod" "$pod" 8443; done
for _ in 1 2 3 4; do ask "the Service" "$service" 443; done

heading "other Services, from the node, and the door's, from a pod's network"
connect "the API server's Service" 10.96.0.1 443
connect "CoreDNS's Service" "$(kubectl -n kube-system get service kube-dns -o jsonpath='{.spec.clusterIP}')" 53
for network in $(ip netns list 2>/dev/null | cut -d' ' -f1 | sed -n 1,2p); do
  connect "the Service, from $network" "$service" 443 ip netns exec "$network"
done

heading "kube-proxy: whether it has caught up, and what failed"
echo "now $(date +%s)"
printf 'GET /metrics HTTP/1.0\r\n\r\n' | timeout 20 socat -,ignoreeof TCP:127.0.0.1:10249 2>&1 |
  grep -E '^kubeproxy_(sync_proxy_rules_(last_timestamp|last_queued_timestamp|iptables_(partial_)?restore_failures_total|duration_seconds_(sum|count))|network_programming_duration_seconds_(sum|count))|E (connect|socat)' ||
  echo "its metrics do not answer"
lines=30 bounded kubectl -n kube-system logs -l k8s-app=kube-proxy --tail=30

heading "its rules, in each kind of iptables"
echo "iptables here is $(readlink -f "$(command -v iptables)")"
for kind in nft legacy; do
  echo "-- $kind: $(iptables-$kind-save 2>/dev/null | grep -c '^-A') rules"
  iptables-$kind-save -c 2>/dev/null |
    grep -E "KUBE-SERVICES|KUBE-POSTROUTING|KUBE-MARK-MASQ -|-d $service/|metsuke-system/metsuke-controller" | grep -v "KUBE-SERVICES -d" | tail -n 40
  iptables-$kind-save -c 2>/dev/null | grep -E -e "KUBE-SERVICES -d $service/"
done

heading "ways: routes, neighbours, connections"
bounded ip route get "$service"
for pod in $pods; do bounded ip route get "$pod"; done
lines=20 bounded ip neighbour show dev podnet
lines=20 bounded conntrack -L -d "$service"
sysctl net.ipv4.conf.all.rp_filter net.bridge.bridge-nf-call-iptables net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max 2>&1

heading "time: who had how much of the processors; weights are by requests, and kube-proxy has none"
cat /proc/loadavg /proc/pressure/cpu 2>/dev/null
ps -eo pid,ni,cls,etime,time,args --sort=-time | cut -c1-150 | sed -n 1,25p
for process in $(pgrep -x 'metsuke|kube-proxy|kube-apiserver'); do
  group=/sys/fs/cgroup/cpu$(sed -n 's/^[0-9]*:[^:]*\bcpu\b[^:]*://p' "/proc/$process/cgroup" | sed -n 1p)
  unified=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$process/cgroup")
  echo "$process $(cut -c1-40 "/proc/$process/comm"): $(cat "$group/cpu.shares" "$unified/cpu.weight" 2>/dev/null | paste -sd' ')"
done

heading logs
lines=60 bounded kubectl $of logs -l app.kubernetes.io/name=metsuke-controller --prefix --tail=30
lines=30 bounded kubectl $of logs -l app.kubernetes.io/name=metsuke-node --all-containers --prefix --tail=30
kubectl -n kube-system logs -l component=kube-apiserver --tail=2000 2>&1 | grep -e "$api" -e reader.metsuke.dev | tail -n 20
exit 0
