// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup hierarchy, as proc_pid_mountinfo(5) and cgroups(7) describe it.
type hierarchy struct {
	mount   string // where it is mounted
	fstype  string // "cgroup" or "cgroup2"
	options string // mount options that name it: "cpu,cpuacct", "none,name=systemd"; empty for cgroup2
	own     string // directory of this process's cgroup in it
}

// hierarchies lists what is mounted below /sys/fs/cgroup.
func hierarchies() ([]hierarchy, error) {
	paths, err := ownCgroups()
	if err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []hierarchy
	for lines := bufio.NewScanner(file); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || !strings.HasPrefix(left[4], cgroupRoot) {
			continue
		}
		h := hierarchy{mount: left[4], fstype: right[0]}
		switch h.fstype {
		case "cgroup2":
		case "cgroup":
			h.options = namingOptions(right[2])
		default:
			continue
		}
		path, ok := paths[strings.TrimPrefix(h.options, "none,")]
		if !ok {
			continue // mounted, but this kernel or namespace does not show it to us
		}
		relative, err := filepath.Rel(left[3], path)
		if err != nil || strings.HasPrefix(relative, "..") {
			return nil, fmt.Errorf("this process's cgroup %s is outside what is mounted on %s (%s)", path, h.mount, left[3])
		}
		h.own = filepath.Join(h.mount, relative)
		found = append(found, h)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", cgroupRoot)
	}
	return found, nil
}

// namingOptions keeps of a v1 mount's options those that say which hierarchy it is.
func namingOptions(super string) string {
	var kept []string
	named := false
	for _, option := range strings.Split(super, ",") {
		switch {
		case option == "rw" || option == "ro" || strings.HasPrefix(option, "release_agent=") ||
			option == "xattr" || option == "clone_children" || option == "noprefix" || option == "favordynmods":
		case strings.HasPrefix(option, "name="):
			named = true
			kept = append(kept, option)
		default:
			kept = append(kept, option)
		}
	}
	if named && len(kept) == 1 {
		kept = append([]string{"none"}, kept...)
	}
	return strings.Join(kept, ",")
}

// ownCgroups maps the controllers of a hierarchy ("" for cgroup2) to this process's path in it.
func ownCgroups() (map[string]string, error) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths[parts[1]] = parts[2]
		}
	}
	return paths, nil
}

// cgroups are the stand's own, one in each hierarchy; made, entered, left and removed by the process outside.
type cgroups struct {
	was  []string // where this process was, per hierarchy
	made []string // the stand's, likewise
}

// cgroupPrefix begins the names of the stands' cgroups; the process's number follows.
const cgroupPrefix = "metsuke-stand-"

// sweep removes the cgroups of stands whose process was killed before it could; nothing runs in them.
func sweep(parent string) {
	stale, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*"))
	for _, dir := range stale {
		pid := strings.TrimPrefix(filepath.Base(dir), cgroupPrefix)
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
			_ = removeTree(dir) // not ours to fail on
		}
	}
}

func newCgroups() (*cgroups, error) {
	name := fmt.Sprint(cgroupPrefix, os.Getpid())
	groups := &cgroups{}
	all, err := hierarchies()
	if err != nil {
		return groups, err
	}
	for _, h := range all {
		parent := h.own
		if h.mount == cgroupRoot && h.fstype == "cgroup2" {
			// A cgroup with processes cannot give controllers to its children, so the stand's is made at the top.
			parent = h.mount
			if err := delegateControllers(parent); err != nil {
				return groups, err
			}
		}
		sweep(parent)
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return groups, fmt.Errorf("make the stand's cgroup: %w", err)
		}
		groups.was = append(groups.was, h.own)
		groups.made = append(groups.made, dir)
		if strings.Contains(","+h.options+",", ",cpuset,") {
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				content, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					return groups, err
				}
				if err := writeFile(filepath.Join(dir, file), string(content)); err != nil {
					return groups, err
				}
			}
		}
	}
	return groups, nil
}

// delegateControllers gives every controller that a cgroup v2 directory has to its children.
func delegateControllers(dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(content)) {
		if err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller); err != nil {
			if controller == "cpu" || controller == "memory" || controller == "pids" {
				return fmt.Errorf("enable the %s controller in %s (in a container, its processes must sit in a child cgroup first): %w", controller, dir, err)
			}
		}
	}
	return nil
}

func (g *cgroups) enter() error { return moveSelf(g.made) }
func (g *cgroups) leave() error { return moveSelf(g.was) }

func moveSelf(dirs []string) error {
	for _, dir := range dirs {
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), "0"); err != nil {
			return err
		}
	}
	return nil
}

// remove waits for the stand's processes to be gone, and removes its cgroups with all below.
func (g *cgroups) remove() error {
	if g == nil {
		return nil
	}
	deadline := time.Now().Add(time.Minute)
	for _, dir := range g.made {
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("left behind: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// removeTree removes a cgroup and its descendants, deepest first.
func removeTree(dir string) error {
	dirs := subdirectories(dir)
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}

// subdirectories is dir and every directory below it, parents first; what vanishes meanwhile is left out.
func subdirectories(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// mountCgroups shows, inside, only the stand's own cgroups: the hierarchies mounted anew from the new cgroup namespace,
// at the same places.
func mountCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	links := map[string]string{} // /sys/fs/cgroup/cpu -> cpu,cpuacct
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(cgroupRoot, entry.Name())); err == nil {
			links[entry.Name()] = target
		}
	}
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host's %s: %w", cgroupRoot, err)
	}
	unified := len(all) == 1 && all[0].fstype == "cgroup2" && all[0].mount == cgroupRoot
	if !unified {
		if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", cgroupRoot, err)
		}
	}
	for _, h := range all {
		if err := os.MkdirAll(h.mount, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", h.mount, h.fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.options); err != nil {
			return fmt.Errorf("mount %s %q on %s: %w", h.fstype, h.options, h.mount, err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(cgroupRoot, name)); err != nil {
			return err
		}
	}
	if !unified {
		return nil
	}
	// The namespace's root must have no processes of its own before it can give controllers away.
	leaf := filepath.Join(cgroupRoot, "stand")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := moveSelf([]string{leaf}); err != nil {
		return err
	}
	return delegateControllers(cgroupRoot)
}

// Unified reports whether the machine has cgroup v2 alone.
func Unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}
