// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Snapshot is what exists in the stand's namespaces at one time, as sorted lines. Whatever one snapshot has and an earlier
// one has not was left behind meanwhile.
type Snapshot map[string]bool

// Snap takes a snapshot: processes of the pid namespace, mounts, cgroups, bound unix sockets, network links and
// namespaces, and state directories of every containerd (bundles, snapshots' mounts, metadata of shims).
func Snap() Snapshot {
	found := Snapshot{}
	for _, pid := range processes() {
		// containerd itself may be started again by the test.
		if line := commandLine(pid); !strings.Contains(line, "/containerd --config "+Dir) {
			found[fmt.Sprintf("process %d %s", pid, line)] = true
		}
	}
	for _, mount := range mountsBelow("/") {
		found["mount "+mount] = true
	}
	for _, dir := range subdirectories(cgroupRoot) {
		if !standingCgroup(dir) {
			found["cgroup "+dir] = true
		}
	}
	for _, socket := range boundSockets() {
		found["socket "+socket] = true
	}
	links, _ := net.Interfaces()
	for _, link := range links {
		if !strings.HasPrefix(link.Name, bridgePrefix) { // a bridge comes with the first pod and stays
			found["network link "+link.Name] = true
		}
	}
	for _, pattern := range []string{
		"/run/netns/*", "/run/containerd/s/*", "/run/containerd/fifo/*", "/run/runc/*", "/run/metsuke[01]/*/*", "/run/metsuke[01]/*/*/*",
		"/run/kata[01]/*", "/run/virtiofsd/*", "/run/vc/*/*", "/run/kata/*", "/run/kata-containers/shared/sandboxes/*",
		Dir + "/*/state/io.containerd.runtime.v2.task/*/*", Dir + "/*/root/io.containerd.runtime.v2.task/*/*",
		Dir + "/*/state/io.containerd.grpc.v1.cri/*/*", Dir + "/*/root/io.containerd.grpc.v1.cri/*/*",
		Dir + "/*/networks/*/10.*",
	} {
		matches, _ := filepath.Glob(pattern) // its only error is a malformed pattern
		for _, match := range matches {
			found["file "+match] = true
		}
	}
	return found
}

// standingCgroup tells cgroups that a first pod makes and that no runtime removes: parents, not pods.
func standingCgroup(dir string) bool {
	switch filepath.Base(dir) {
	case "k8s.io", "kubepods", "stand":
		return true
	case "kata_overhead", "vc": // Kata's shim
		return true
	}
	return false
}

// Leaks waits until nothing is left that was not there before, and returns what is when the context ends first. Kinds that are
// granted (see LeakKind; nil: none) may stay. Ends of processes and removals of cgroups follow a pod's removal by some milliseconds, or
// by seconds where the machine is busy, so a first look proves nothing.
func Leaks(ctx context.Context, before Snapshot, granted map[string]bool) []string {
	for {
		var left []string
		for line := range Snap() {
			if !before[line] && !granted[LeakKind(line)] {
				left = append(left, line)
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			slices.Sort(left)
			return left
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// varying is what differs between two leaks of one kind: IDs and numbers of processes.
var varying = regexp.MustCompile(`[0-9a-f]{64}|^process [0-9]+`)

// LeakKind is a line of Leaks without what differs from pod to pod.
func LeakKind(leak string) string { return varying.ReplaceAllString(leak, "…") }

// processes lists the pid namespace.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		var pid int
		if _, err := fmt.Sscanf(entry.Name(), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func commandLine(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(content) == 0 {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return "(gone)"
		}
		return "[" + strings.TrimSpace(string(comm)) + "]"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(content), "\x00", " "))
}

// Processes are the pids of the stand whose command line contains the text, such as a container's ID and a shim's name.
func Processes(texts ...string) []int {
	var found []int
	for _, pid := range processes() {
		line := commandLine(pid)
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found = append(found, pid)
		}
	}
	return found
}

// Shims are the processes that are shims of the pod, by the shim's name ("metsuke", "runc").
func (p *Pod) Shims(name string) []int {
	return Processes("containerd-shim-"+name+"-v2", p.ID)
}

// mountsBelow lists mount points below dir, the newest first.
func mountsBelow(dir string) []string {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	var mounts []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4]+"/", strings.TrimSuffix(dir, "/")+"/") {
			mounts = append(mounts, fields[4])
		}
	}
	slices.Reverse(mounts)
	return mounts
}

// boundSockets lists the unix sockets of this network namespace that have a name, abstract ones (with @) included.
func boundSockets() []string {
	content, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(content)) {
		// Num RefCount Protocol Flags Type St Inode Path; only listening sockets (flag 0x10000) are state.
		if fields := strings.Fields(line); len(fields) == 8 && fields[3] == "00010000" {
			names = append(names, fields[7])
		}
	}
	return names
}
