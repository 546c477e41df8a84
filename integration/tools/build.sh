#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the tools that the stands run (containerd 2 and 1.7, runc, CNI plugins, cri-tools, Kata's Go shim, Kubernetes, kind, Helm, a NATS
# server, an OpenTelemetry collector) and golangci-lint, each from the Go module that a go.mod and a go.sum pin (see module below), takes
# from such modules the definitions of others' kinds that the examples have, and fetches Kafka's jars with Maven, and from Debian busybox
# for the images, a kernel for guests, Docker, and the base system of kind's nodes. They go to a cache outside the checkout, one directory
# a set, named by the hash of what was pinned; a second run finds them there.
#
#   build.sh [-cached] [SET...]     builds what is missing; prints SET=DIRECTORY on stdout, one line a set; progress goes to stderr
#                                   -cached: builds nothing, and prints nothing of a set that is missing
#
# Needs go; the sets `runc` and `runcstatic` need a C compiler, pkg-config and libseccomp-dev too, `busybox` and `docker` need
# apt-get and dpkg-deb, `kernel` depmod too, `nodebase` root and wget, `kafka` mvn (see install-deps.sh).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${METSUKE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/metsuke}/tools
export GOWORK=off GO111MODULE=on

say() { echo "tools: $*" >&2; }

if ! command -v go >/dev/null; then
  say "Go is missing. Install the version that go.mod names, or newer (Debian 12's golang is too old): https://go.dev/dl"
  exit 1
fi

plain=(go build -trimpath -buildvcs=false -mod=readonly)

# recipe_SET OUT: builds a set into OUT, run in the set's directory. (A set is keyed by its recipe as well as by its pins.)
recipe_containerd2() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$(version github.com/containerd/containerd/v2)" -o "$1/" \
    github.com/containerd/containerd/v2/cmd/{containerd,ctr,containerd-shim-runc-v2}
}

recipe_containerd1() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w -X github.com/containerd/containerd/version.Version=$(version github.com/containerd/containerd)" -o "$1/" \
    github.com/containerd/containerd/cmd/{containerd,ctr,containerd-shim-runc-v2}
}

recipe_runc() {
  CGO_ENABLED=1 "${plain[@]}" -tags seccomp -ldflags "-s -w" -o "$1/" github.com/opencontainers/runc
}

# For the guest of Kata, which has no libraries.
recipe_runcstatic() {
  CGO_ENABLED=1 "${plain[@]}" -tags "seccomp netgo osusergo" -ldflags "-s -w -extldflags -static" -o "$1/runc" github.com/opencontainers/runc
}

# Kata's Go shim as Kata builds it: with the versions that its own go.mod and go.sum pin, and the one file that its Makefile
# generates.
recipe_kata() {
  local kata=github.com/kata-containers/kata-containers/src/runtime pinned
  go mod download "$kata"
  pinned=$(version $kata)
  cp -r "$(go list -m -f '{{.Dir}}' $kata)" "$1/source"
  chmod -R u+w "$1/source"
  cd "$1/source"
  sed -e 's|@RUNTIME_NAME@|containerd-shim-kata-v2|; s|@PROJECT_NAME@|Kata Containers|; s|@PROJECT_TYPE@|kata|' \
    -e 's|@PROJECT_URL@|https://github.com/kata-containers|; s|@PROJECT_ORG@|kata-containers|' \
    -e 's|@PKGRUNDIR@|/var/run/kata-containers|; s|@SYSCONFIG@|/etc/kata-containers/configuration.toml|' \
    -e 's|@CONFIG_PATH@|/usr/share/defaults/kata-containers/configuration.toml|' \
    -e "s|@VERSION@|$pinned|; s|@COMMIT@|${pinned##*-}|" \
    pkg/katautils/config-settings.go.in >pkg/katautils/config-settings.go
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" ./cmd/containerd-shim-kata-v2
  rm -r "$1/source"
}

recipe_cni() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap}
}

recipe_critools() {
  local stamp
  stamp="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$(version sigs.k8s.io/cri-tools)"
  CGO_ENABLED=0 "${plain[@]}" -ldflags "$stamp" -o "$1/" sigs.k8s.io/cri-tools/cmd/crictl
  # critest is a test binary.
  CGO_ENABLED=0 go test -c -trimpath -buildvcs=false -mod=readonly -ldflags "$stamp" -o "$1/critest" sigs.k8s.io/cri-tools/cmd/critest
}

recipe_lint() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" github.com/golangci/golangci-lint/v2/cmd/golangci-lint
}

# Unpacked, not installed: it conflicts with busybox-static, whose shell prefers its own applets to the files of the container,
# which hides a masked path.
recipe_busybox() {
  cd "$1"
  download busybox
  dpkg-deb --fsys-tarfile busybox_*.deb | tar -xO ./bin/busybox >busybox
  rm busybox_*.deb
  chmod 755 busybox
}

# Debian's cloud kernel, unpacked, not installed: vmlinuz, config and modules/ (lib/modules/<release>, with modules.dep).
recipe_kernel() {
  cd "$1"
  local image
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | grep -q Depends || apt-get -q update
  image=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  download "$image"
  dpkg-deb -x "$image"_*.deb .
  depmod -b . "${image#linux-image-}"
  mv boot/vmlinuz-* vmlinuz
  mv boot/config-* config
  mv lib/modules modules
  rm -r boot lib usr ./*.deb
}

recipe_kind() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" sigs.k8s.io/kind
}

# Helm, stamped as its own build does it: which Kubernetes it takes for granted where it sees none.
recipe_helm() {
  local helm=helm.sh/helm/v3 name stamp minor
  stamp="-X $helm/internal/version.version=$(version $helm)"
  minor=$(version k8s.io/client-go | cut -d. -f2)
  for name in lint/rules chartutil; do
    stamp+=" -X $helm/pkg/$name.k8sVersionMajor=1 -X $helm/pkg/$name.k8sVersionMinor=$minor"
  done
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w $stamp" -o "$1/" $helm/cmd/helm
}

# Kubernetes, stamped as its own build does it. One after the other: the linker takes up to 2 GB for each.
recipe_kubernetes() {
  local v name
  v=$(version k8s.io/kubernetes)
  echo "$v" >"$1/version"
  IFS=. read -r major minor _ <<<"${v#v}"
  for name in kubeadm kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
    CGO_ENABLED=0 "${plain[@]}" -o "$1/" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$v -X k8s.io/component-base/version.gitMajor=$major \
      -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/client-go/pkg/version.gitVersion=$v" k8s.io/kubernetes/cmd/$name
  done
}

# A process for sandboxes, which the kernel rids of its orphans.
recipe_pause() {
  gcc -static -O2 -o "$1/pause" -x c - <<'EOF'
#include <signal.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, SIG_IGN);
  for (;;) pause();
}
EOF
}

recipe_etcd() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/etcd" go.etcd.io/etcd/server/v3
  version go.etcd.io/etcd/server/v3 >"$1/version"
}

recipe_nats() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" github.com/nats-io/nats-server/v2
}

recipe_collector() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" .
}

# A broker and all that it needs, as jars. pom.xml names their versions, as far as it must; sha256sums has every one of them.
recipe_kafka() {
  mvn -B -q -ntp -Dmaven.repo.local="$1/repository" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$1"
  rm -r "$1/repository"
  cd "$1"
  sha256sum --quiet -c "$here/kafka/sha256sums"
  [ "$(ls | wc -l)" = "$(wc -l <"$here/kafka/sha256sums")" ] || { say "kafka: there are jars that sha256sums does not have"; return 1; }
}

recipe_coredns() {
  CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$1/" github.com/coredns/coredns
  version github.com/coredns/coredns >"$1/version"
}

# Docker's daemon and client, unpacked, not installed: installing them would start a daemon on the machine.
recipe_docker() {
  cd "$1"
  download docker.io
  dpkg-deb -x docker.io_*.deb .
  mv usr/sbin/dockerd usr/sbin/docker-proxy usr/bin/docker .
  rm -r etc lib usr ./*.deb
}

# What lies under Kubernetes on a node: base.tar, made as kind's images/base/Dockerfile makes it, of Debian's packages and kind's
# own files; and iptables.tar, the part of it that kube-proxy's image needs.
recipe_nodebase() {
  local kind root=$1/root
  go mod download sigs.k8s.io/kind
  kind=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
  cd "$1"
  download debootstrap
  dpkg-deb -x debootstrap_*.deb debootstrap
  # Without doc, man and locale files, as dpkg leaves them out in Debian's own container images.
  DEBOOTSTRAP_DIR=$1/debootstrap/usr/share/debootstrap debootstrap/usr/sbin/debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,socat,ca-certificates,jq,procps bookworm "$root"
  rm -rf "$root"/usr/share/{doc,man,locale}/* "$root"/var/{lib/apt/lists,cache/apt,log}/* "$root"/dev/* debootstrap ./*.deb
  cp -r --no-preserve=mode,ownership "$kind/images/base/files/." "$root/"
  chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
  rm -f "$root"/{lib,etc}/systemd/system/multi-user.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/{local-fs,basic}.target.wants/* "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
  echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
  mkdir -p "$root/etc/kubernetes/manifests"
  chroot "$root" systemctl set-default multi-user.target
  chroot "$root" systemctl enable kubelet containerd undo-mount-hacks
  # These write what is the whole kernel's.
  chroot "$root" systemctl mask systemd-binfmt
  rm -f "$root"/usr/lib/sysctl.d/*.conf
  tar -C "$root" --sort=name -cf base.tar .
  # iptables, its extensions, conntrack, and all libraries that they load: the extensions have some that the programs have not. kube-proxy
  # needs the extension that chooses among endpoints as soon as a Service has two.
  chroot "$root" bash -c 'cd / && programs=(usr/sbin/{conntrack,ip{,6}tables{,-save,-restore}})
    libraries=$(ldd "${programs[@]/#//}" /usr/lib/*-linux-gnu/xtables/*.so | grep -v ":$" | grep -o "/[^ :]*\.so[^ :]*" | sort -u | cut -c2-)
    tar -hc "${programs[@]}" usr/lib/*-linux-gnu/xtables $libraries' >iptables.tar
  rm -rf "$root"
  mkdir "$root"
  tar -C "$root" -xf iptables.tar
  chroot "$root" /usr/sbin/iptables -m statistic -h >/dev/null
  rm -rf "$root"
}

# The CustomResourceDefinitions of the examples' kinds, as others publish them.
recipe_crds() {
  go mod download github.com/kubeflow/trainer/v2 sigs.k8s.io/agent-sandbox
  cp "$(go list -m -f '{{.Dir}}' github.com/kubeflow/trainer/v2)"/manifests/base/crds/trainer.kubeflow.org_train*.yaml "$1/"
  cp "$(go list -m -f '{{.Dir}}' sigs.k8s.io/agent-sandbox)"/k8s/crds/*.yaml "$1/"
}

# download PACKAGE: gets a Debian package into this directory. The lists of a fresh machine may be absent or old.
download() {
  apt-get -q -o APT::Sandbox::User=root download "$1" || { apt-get -q update && apt-get -q -o APT::Sandbox::User=root download "$1"; }
}

# module SET: the directory of what pins a set; for a set that nothing pins, this one.
module() {
  case $1 in
  runcstatic) echo "$here/runc" ;;
  kata) echo "$here/../kata" ;; # the stand-ins there speak this version's protocols
  nodebase) echo "$here/kind" ;;
  collector) echo "$here/../shipping/collector" ;;
  *) [ -d "$here/$1" ] && echo "$here/$1" || echo "$here" ;;
  esac
}

# pinned DIRECTORY: what a set's key is made of, beside its recipe.
pinned() {
  local file
  for file in "$1"/{go.mod,go.sum,pom.xml,sha256sums} "$1"/*.go; do
    [ ! -f "$file" ] || cat "$file"
  done
}

version() { go list -m -f '{{.Version}}' "$1"; }

cached=
[ "${1-}" != -cached ] || { cached=1 && shift; }
[ $# -gt 0 ] || set -- containerd2 containerd1 runc cni critools busybox
mkdir -p "$cache"
for set in "$@"; do
  if ! declare -F "recipe_$set" >/dev/null; then
    say "unknown set $set (known:$(declare -F | sed -n 's/.* recipe_/ /p' | tr -d '\n'))"
    exit 2
  fi
  pins=$(module "$set")
  key=$({ [ "$pins" = "$here" ] || pinned "$pins"; declare -f "recipe_$set"; } | sha256sum | cut -c1-16)
  dir=$cache/$set-$key
  [ -z "$cached" ] || [ -d "$dir" ] || continue
  if [ ! -d "$dir" ]; then
    (
      flock 9 # two builds of a set at once: the second waits and finds the work done
      [ -d "$dir" ] && exit 0
      say "building $set (once; later runs find it in $dir)"
      begin=$SECONDS
      tmp=$(mktemp -d "$cache/.$set.XXXXXX")
      trap 'rm -rf "$tmp"' EXIT
      (cd "$pins" && "recipe_$set" "$tmp") >&2
      chmod 755 "$tmp"
      mv "$tmp" "$dir"
      say "built $set in $((SECONDS - begin)) s"
    ) 9>"$cache/.lock-$set"
  fi
  echo "$set=$dir"
done
