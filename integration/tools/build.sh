#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the tools that the stand runs (containerd 2 and 1.7, runc, CNI plugins, cri-tools) and golangci-lint, each from
# the Go module that ./<set>/go.mod and go.sum pin, and fetches Debian's busybox for the images. Binaries go to a cache
# outside the checkout, one directory a set, named by the hash of what was pinned; a second run finds them there.
#
#   build.sh [SET...]     builds what is missing; prints SET=DIRECTORY on stdout, one line a set; progress goes to stderr
#
# Needs go; the set `runc` needs a C compiler, pkg-config and libseccomp-dev too, `busybox` needs apt-get and dpkg-deb
# (see install-deps.sh).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${METSUKE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/metsuke}/tools
export GOWORK=off GO111MODULE=on

say() { echo "tools: $*" >&2; }

if ! command -v go >/dev/null; then
  say "Go is missing. Install the version that go.mod names, or newer (Debian 12's golang is too old): https://go.dev/dl"
  exit 1
fi

# build SET OUT: the recipe of each set, run in the set's directory.
build() {
  local set=$1 out=$2
  local plain=(go build -trimpath -buildvcs=false -mod=readonly)
  [ ! -d "$here/$set" ] || cd "$here/$set"
  case $set in
  containerd2)
    CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$(version github.com/containerd/containerd/v2)" -o "$out/" \
      github.com/containerd/containerd/v2/cmd/{containerd,ctr,containerd-shim-runc-v2} ;;
  containerd1)
    CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w -X github.com/containerd/containerd/version.Version=$(version github.com/containerd/containerd)" -o "$out/" \
      github.com/containerd/containerd/cmd/{containerd,ctr,containerd-shim-runc-v2} ;;
  runc)
    CGO_ENABLED=1 "${plain[@]}" -tags seccomp -ldflags "-s -w" -o "$out/" github.com/opencontainers/runc ;;
  cni)
    CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$out/" github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap} ;;
  critools)
    local stamp
    stamp="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$(version sigs.k8s.io/cri-tools)"
    CGO_ENABLED=0 "${plain[@]}" -ldflags "$stamp" -o "$out/" sigs.k8s.io/cri-tools/cmd/crictl
    # critest is a test binary.
    CGO_ENABLED=0 go test -c -trimpath -buildvcs=false -mod=readonly -ldflags "$stamp" -o "$out/critest" sigs.k8s.io/cri-tools/cmd/critest ;;
  lint)
    CGO_ENABLED=0 "${plain[@]}" -ldflags "-s -w" -o "$out/" github.com/golangci/golangci-lint/v2/cmd/golangci-lint ;;
  busybox)
    # Unpacked, not installed: it conflicts with busybox-static, whose shell prefers its own applets to the files of the
    # container, which hides a masked path.
    cd "$out"
    apt-get -q -o APT::Sandbox::User=root download busybox || { apt-get -q update && apt-get -q -o APT::Sandbox::User=root download busybox; }
    dpkg-deb --fsys-tarfile busybox_*.deb | tar -xO ./bin/busybox >busybox
    rm busybox_*.deb
    chmod 755 busybox ;;
  *)
    say "unknown set $set (known: containerd2 containerd1 runc cni critools busybox lint)"; return 2 ;;
  esac
}

version() { go list -m -f '{{.Version}}' "$1"; }

[ $# -gt 0 ] || set -- containerd2 containerd1 runc cni critools busybox
mkdir -p "$cache"
for set in "$@"; do
  key=$({ [ ! -d "$here/$set" ] || cat "$here/$set/go.mod" "$here/$set/go.sum"; declare -f build; } | sha256sum | cut -c1-16)
  dir=$cache/$set-$key
  if [ ! -d "$dir" ]; then
    (
      flock 9 # two builds at once: the second waits and finds the work done
      [ -d "$dir" ] && exit 0
      say "building $set (once; later runs find it in $dir)"
      begin=$SECONDS
      tmp=$(mktemp -d "$cache/.$set.XXXXXX")
      trap 'rm -rf "$tmp"' EXIT
      (build "$set" "$tmp") >&2
      chmod 755 "$tmp"
      mv "$tmp" "$dir"
      say "built $set in $((SECONDS - begin)) s"
    ) 9>"$cache/.lock"
  fi
  echo "$set=$dir"
done
