// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A Host is what one machine (or guest) mounts of cgroups. It is read once and then immutable; its methods read
// small files of cgroupfs and procfs, block no longer than those reads, and are safe for concurrent use.
type Host struct {
	// Version is the form that delegates use here: V2 if a cgroup2 file system is mounted at /sys/fs/cgroup
	// (runc's rule), else V1.
	Version Version

	root    string           // prefix of all paths; empty except in tests
	v1      map[string]mount // by controller
	unified mount            // cgroup2, wherever it is mounted; its point is empty if it is not
	all     []mount          // every hierarchy that delegates see
}

// A mount shows the part of a hierarchy below root at point.
type mount struct{ root, point string }

// unifiedPoint is where delegates look for a unified hierarchy (runc: IsCgroup2UnifiedMode).
const unifiedPoint = "/sys/fs/cgroup"

// maxFile bounds every file that this package reads; mountinfo of a node with thousands of pods is the largest.
const maxFile = 16 << 20

// Detect reads the hierarchies of the machine from <root>/proc/self/mountinfo (proc(5)). root is empty, or the
// directory that a test uses in place of "/".
func Detect(root string) (*Host, error) {
	h := &Host{root: root, v1: map[string]mount{}}
	data, err := h.read("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	for line := range strings.Lines(data) {
		h.addMount(line)
	}
	switch {
	case h.unified.point == unifiedPoint:
		h.Version = V2
	case len(h.v1) > 0:
		h.Version = V1
	default:
		return nil, errors.New("find cgroup hierarchies: none is mounted under /sys/fs/cgroup")
	}
	return h, nil
}

// DetectVersion is [Detect] for callers that need the form only.
func DetectVersion(root string) (Version, error) {
	h, err := Detect(root)
	if err != nil {
		return 0, err
	}
	return h.Version, nil
}

// addMount reads one line: "31 23 0:28 /root /point rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct".
func (h *Host) addMount(line string) {
	before, after, ok := strings.Cut(line, " - ")
	fields, super := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 6 || len(super) < 3 {
		return
	}
	m := mount{root: unescape(fields[3]), point: unescape(fields[4])}
	if strings.HasPrefix(super[0], "cgroup") && (m.point == unifiedPoint || strings.HasPrefix(m.point, unifiedPoint+"/")) {
		h.all = append(h.all, m)
	}
	switch super[0] {
	case "cgroup2":
		if m.better(h.unified) {
			h.unified = m
		}
	case "cgroup":
		for name := range strings.SplitSeq(super[2], ",") {
			if isV1Controller(name) && m.better(h.v1[name]) {
				h.v1[name] = m
			}
		}
	}
}

// better prefers the mount that delegates use over the copies that containers and tools leave.
func (m mount) better(o mount) bool {
	rank := func(m mount) int {
		switch {
		case m.point == unifiedPoint:
			return 3
		case strings.HasPrefix(m.point, unifiedPoint+"/"):
			return 2
		case m.point != "":
			return 1
		}
		return 0
	}
	return rank(m) > rank(o)
}

func isV1Controller(option string) bool {
	switch option {
	case "cpu", "cpuset", "memory", "pids", "hugetlb", "blkio":
		return true
	}
	return false
}

// unescape undoes the octal escapes of mountinfo for space, tab, newline and backslash.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// read returns a file as text, without its last newline.
func (h *Host) read(path string) (string, error) {
	f, err := os.Open(filepath.Join(h.root+"/", path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxFile {
		return "", fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

func (h *Host) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(h.root+"/", path))
	return err == nil
}

// controller returns the mount that holds a controller's files, by its v2 name.
func (h *Host) controller(name string) (mount, bool) {
	if h.Version == V2 {
		return h.unified, h.unified.point != ""
	}
	if name == "io" {
		name = "blkio"
	}
	m, ok := h.v1[name]
	return m, ok
}

// dir returns the directory of the process's cgroup under the mount m. Where the mount shows only a part of
// the hierarchy (a container without a cgroup namespace), the part above is cut off.
func (m mount) dir(cgroup string) (string, error) {
	if strings.Contains(cgroup+"/", "/../") {
		return "", fmt.Errorf("cgroup %s is outside this cgroup namespace", cgroup)
	}
	if m.root != "/" {
		rest, ok := strings.CutPrefix(cgroup+"/", m.root+"/")
		if !ok {
			return "", fmt.Errorf("cgroup %s is outside of %s, which is what %s shows", cgroup, m.root, m.point)
		}
		cgroup = "/" + rest
	}
	return filepath.Join(m.point, cgroup), nil
}

// cgroupOf returns the cgroup of a process in the hierarchy of a controller, from the text of
// /proc/<pid>/cgroup (cgroups(7)).
func (h *Host) cgroupOf(text, controller string) (string, error) {
	if controller == "io" && h.Version == V1 {
		controller = "blkio"
	}
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		if h.Version == V2 {
			if parts[0] == "0" && parts[1] == "" {
				return parts[2], nil
			}
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller {
				return parts[2], nil
			}
		}
	}
	return "", fmt.Errorf("the process is in no cgroup of the %s controller", controller)
}
