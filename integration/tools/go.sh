#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the directory of a go command that can build this repository, or of where one will be.
#
#   go.sh             prints it, and does nothing else
#   go.sh --install   makes one first, where there is none
#
# Go 1.21 and newer fetch by themselves the toolchain that go.mod asks for. Debian 12 has Go 1.19, which cannot, but it can
# download the toolchain as what it is on the module proxy, a module. Its files are checked against the checksum database.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${METSUKE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/metsuke}

say() { echo "go.sh: $*" >&2; }

# new_enough GO: whether this go command is 1.21 or newer.
new_enough() {
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ]
}

if command -v go >/dev/null && new_enough go; then
  dirname "$(command -v go)"
  exit 0
fi

# The newest version that any of the modules asks for.
wanted=$(sed -n 's/^go \(1\.[0-9.]*\)$/\1/p' "$here"/../../go.mod "$here"/../go.mod "$here"/*/go.mod | sort -V | tail -1)
arch=$(dpkg --print-architecture 2>/dev/null || uname -m)
[ "$arch" != x86_64 ] || arch=amd64
[ "$arch" != aarch64 ] || arch=arm64
toolchain=$cache/go$wanted
if [ "${1:-}" = --install ] && [ ! -x "$toolchain/bin/go" ]; then
  old=$(command -v go || true)
  if [ -z "$old" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      say "Go is missing. Install Go 1.21 or newer (https://go.dev/dl)."
      exit 1
    fi
    say "installing Debian's Go, to fetch go$wanted with it"
    apt-get -qq update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends golang-go ca-certificates >&2
    old=$(command -v go)
  fi
  say "fetching go$wanted from the Go module proxy"
  modules=$(mktemp -d)
  trap 'chmod -R u+w "$modules"; rm -rf "$modules"' EXIT
  (cd "$modules" && GOMODCACHE=$modules GOFLAGS= GO111MODULE=on "$old" mod download "golang.org/toolchain@v0.0.1-go$wanted.linux-$arch") >&2
  mkdir -p "$cache"
  # The module cache keeps no executable bits.
  cp -r "$modules/golang.org/toolchain@v0.0.1-go$wanted.linux-$arch" "$toolchain.new"
  chmod -R u+w "$toolchain.new"
  find "$toolchain.new/bin" "$toolchain.new/pkg/tool" -type f -exec chmod 755 {} +
  mv "$toolchain.new" "$toolchain"
fi
echo "$toolchain/bin"
