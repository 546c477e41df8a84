// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// shareNamespaces makes an ipc and a uts namespace with a host name, and binds them to files in dir, where they stay without
// any process in them (AG/namespace.rs, setup_shared_namespaces in AG/sandbox.rs).
func shareNamespaces(dir, hostname string) (ipc, uts string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("share namespaces: %w", err)
	}
	result := make(chan error)
	go func() {
		// Never unlocked: the thread is in other namespaces now and ends with the goroutine.
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Sethostname([]byte(hostname)); err != nil {
				return fmt.Errorf("sethostname: %w", err)
			}
			for _, name := range []string{"ipc", "uts"} {
				file := filepath.Join(dir, name)
				if err := os.WriteFile(file, nil, 0o444); err != nil {
					return err
				}
				if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), name), file, "", unix.MS_BIND, ""); err != nil {
					return fmt.Errorf("bind the %s namespace: %w", name, err)
				}
			}
			return nil
		}()
	}()
	if err := <-result; err != nil {
		return "", "", fmt.Errorf("share namespaces: %w", err)
	}
	return filepath.Join(dir, "ipc"), filepath.Join(dir, "uts"), nil
}

// pinned are the namespaces that an exec joins, by their names in /proc/PID/ns.
var pinned = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// pinNamespaces has execs join the namespaces that a container's first process has now, whatever that does later: the real agent
// keeps descriptors of them (RJ/container.rs:1446). runc opens what /proc/PID/ns names, so what is there now is bound to files in
// dir, and those over that directory. That mount goes with the process.
func pinNamespaces(dir string, pid int) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("pin namespaces: %w", err)
	}
	of := fmt.Sprintf("/proc/%d/ns", pid)
	for _, name := range pinned {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o444); err != nil {
			return fmt.Errorf("pin namespaces: %w", err)
		}
		if err := unix.Mount(filepath.Join(of, name), file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin the %s namespace: %w", name, err)
		}
	}
	return bind(dir, of)
}

// unpinNamespaces takes back what pinNamespaces did, as far as it was done, once the process has ended.
func unpinNamespaces(dir string) error {
	var errs []error
	for _, name := range pinned {
		file := filepath.Join(dir, name)
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unpin the %s namespace: %w", name, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}
