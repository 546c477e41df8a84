// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// default14 are the capabilities that containerd gives a container (pkg/oci, defaultUnixCaps).
var default14 = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	"CAP_AUDIT_WRITE"}

// baseSpec is a container as CRI makes it, of the probe.
func baseSpec() *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args:         []string{"probe", "hold"},
			Env:          []string{"PATH=/bin", "GODEBUG=inittrace=1", "A=b c", "GOMAXPROCS=1", "TERM=xterm"},
			Cwd:          "/dir",
			User:         specs.User{AdditionalGids: []uint32{5, 10}},
			Capabilities: capSets(default14, nil),
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}},
			OOMScoreAdj:  new(100),
		},
		Hostname: "parity",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys"}, ReadonlyPaths: []string{"/proc/sys"},
			Resources: &specs.LinuxResources{},
		},
	}
}

// capSets are the sets that containerd makes of a list, plus inheritable and ambient ones.
func capSets(list, inheritable []string, ambient ...string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list, Inheritable: inheritable, Ambient: ambient}
}

// runtimeDefault sets containerd's own seccomp profile.
func runtimeDefault(t testing.TB, s *specs.Spec) {
	t.Helper()
	s.Linux.Seccomp = seccomp.DefaultProfile(s)
}

// cgroupParent is where the tests' cgroups are.
const cgroupParent = "/metsuke-parity/"

// cleanCgroups removes the parents of the containers' cgroups, which runc leaves.
func cleanCgroups() {
	roots, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return
	}
	os.Remove("/sys/fs/cgroup" + cgroupParent) // not there with cgroup v1
	for _, root := range roots {
		os.Remove("/sys/fs/cgroup/" + root.Name() + cgroupParent) // not there, or no hierarchy
	}
}

// allCapabilities lists what this process may give.
func allCapabilities(t testing.TB) (names []string) {
	t.Helper()
	known := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
		SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
		SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
	_, rest, _ := strings.Cut(string(read(t, "/proc/self/status")), "CapPrm:")
	var mine uint64
	if _, err := fmt.Sscanf(rest, "%x", &mine); err != nil {
		t.Fatal(err)
	}
	for n, name := range known {
		if mine&(1<<n) != 0 {
			names = append(names, "CAP_"+name)
		}
	}
	return names
}
