// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where everything of a stand lies, inside its mount namespace: a tmpfs.
const Dir = "/run/stand"

// setUpNamespaces is done by process 1, once, before the program.
func setUpNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the new pid namespace: %w", err)
	}
	// containerd, its shims and the CNI plugins have fixed places below /run (sockets, network namespaces).
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", Dir, "tmpfs", 0, "mode=0755,size=75%"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", Dir, err)
	}
	// A configuration at Metsuke's default place, without a change to the machine's.
	if err := Overlay("/etc"); err != nil {
		return err
	}
	// Mounts of pods go from containerd to its shims and on into containers.
	if err := unix.Mount("", "/run", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts below /run: %w", err)
	}
	if err := mountCgroups(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("stand")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	// Between pods and the stand's own addresses; per network namespace.
	if err := writeFile("/proc/sys/net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return loopbackUp()
}

// Overlay lets what is inside write below a directory of the machine without changing it there.
func Overlay(dir string) error {
	layers := filepath.Join(Dir, "overlays", dir)
	upper, work := filepath.Join(layers, "upper"), filepath.Join(layers, "work")
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", dir, err)
	}
	return nil
}

// loopbackUp is `ip link set lo up`.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

func writeFile(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %q: %w", content, err)
	}
	return nil
}

// HasCapability reports whether this process has the capability in its effective set (capabilities(7)).
func HasCapability(number uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var set uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%x", &set); err != nil {
				return false
			}
			return set&(1<<number) != 0
		}
	}
	return false
}
