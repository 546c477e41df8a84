#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that building, testing and the stand need, where they are missing, and sees to a Go that
# is new enough. Does nothing, quickly, when all is there.
#
#   install-deps.sh [kind]   kind: also what the kind stand needs
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { echo "install-deps: $*" >&2; }

# package, then a file or command that shows it is there by whatever way
needs=(
  "gcc                 command:gcc"                 # race detector, runc, the C programs of the bench
  "libc6-dev           file:/usr/include/stdlib.h"
  "linux-libc-dev      file:/usr/include/linux/seccomp.h"
  "pkg-config          command:pkg-config"          # runc finds libseccomp by it
  "libseccomp-dev      file:/usr/include/seccomp.h" # runc; the differential tests
  "iptables            command:iptables"            # CNI portmap
  "iproute2            command:ip"
  "procps              command:pgrep"
  "util-linux          command:ipcmk"               # critest
  "mount               command:mount"
  "strace              command:strace"              # demo and bench
  "curl                command:curl"                # the demo's agent
  "python3-minimal     command:python3"             # likewise
  "qemu-system-x86     command:qemu-system-x86_64"  # the guests of the Kata stand; brings virtiofsd
  "chromium            command:chromium"            # looks at pages of metsuke audit report
  "kmod                command:depmod"              # their kernel's modules
  "cpio                command:cpio"                # the guest of the agent's own tests
  "default-jre-headless command:java"               # the Kafka broker that records are shipped to
  "maven               command:mvn"                 # its jars
  "ca-certificates     file:/etc/ssl/certs/ca-certificates.crt"
)
if [ "${1:-}" = kind ]; then
  needs+=(
    "wget               command:wget"                # debootstrap
    "libdevmapper1.02.1 file:/usr/lib/$(uname -m)-linux-gnu/libdevmapper.so.1.02.1" # dockerd
  )
fi
missing=()
for need in "${needs[@]}"; do
  read -r package proof <<<"$need"
  case $proof in
  command:*) command -v "${proof#command:}" >/dev/null || missing+=("$package") ;;
  file:*) [ -e "${proof#file:}" ] || missing+=("$package") ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. Install these Debian packages, or run this as root on Debian."
    exit 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # The package lists of a fresh machine may be absent or old.
  apt-get -qq update >&2
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
fi
"$here/go.sh" --install >/dev/null
