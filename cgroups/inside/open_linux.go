// SPDX-License-Identifier: Apache-2.0

package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// childName is the cgroup that exists while Open runs.
const childName = ".metsuke"

// maxCgroups bounds the search for the process's cgroup. A guest has some dozens.
const maxCgroups = 4096

// Open opens the files of the cgroup that the calling process is in, under mount, a cgroup2 file system mounted writable.
// Its root may be that cgroup or one above it, up to the whole tree of a guest: older agents mount it before they make
// the container's cgroup namespace.
//
// The process is in a child of its cgroup meanwhile, with all its threads, so it must not start another process. When Open
// returns it is back, whatever the error, unless the error says that it is not. /proc must be mounted.
func Open(mount string) (*Cgroup, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(mount, &fs); err != nil {
		return nil, fmt.Errorf("open the cgroup below %s: %w", mount, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fmt.Errorf("open the cgroup below %s: it is not a cgroup2 file system: the guest has cgroup v1, or none", mount)
	}
	dir, err := own(mount)
	if err != nil {
		return nil, fmt.Errorf("find this process's cgroup below %s: %w", mount, err)
	}
	files, err := openFromChild(dir)
	if err != nil {
		return nil, fmt.Errorf("open the files of cgroup %s: %w", dir, errors.Join(err, (&Cgroup{files: files}).Close()))
	}
	return &Cgroup{files: files}, nil
}

// own finds the directory of the process's cgroup. Neither /proc/self/cgroup nor mountinfo has its name, if the mount shows
// more than the cgroup namespace; but each cgroup lists its processes.
func own(mount string) (string, error) {
	pid := strconv.Itoa(os.Getpid())
	dirs := []string{mount}
	for i := 0; i < len(dirs); i++ {
		if i == maxCgroups {
			return "", fmt.Errorf("it is in none of %d cgroups", maxCgroups)
		}
		// What cannot be read is threaded, or is gone by now: not ours.
		procs, _ := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
		for line := range strings.Lines(string(procs)) {
			if strings.TrimSuffix(line, "\n") == pid {
				return dirs[i], nil
			}
		}
		entries, _ := os.ReadDir(dirs[i])
		for _, entry := range entries {
			if entry.IsDir() {
				dirs = append(dirs, filepath.Join(dirs[i], entry.Name()))
			}
		}
	}
	return "", errors.New("it is in none of those that are mounted")
}

// openFromChild opens the files of the process's cgroup dir as the package's comment says.
func openFromChild(dir string) (files map[string]int, err error) {
	child := filepath.Join(dir, childName)
	if err := os.Mkdir(child, 0o700); err != nil && !errors.Is(err, os.ErrExist) { // an earlier one may have died
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Rmdir(child)) }()
	if err := move(child); err != nil {
		return nil, err
	}
	defer func() {
		if back := move(dir); back != nil {
			err = errors.Join(err, fmt.Errorf("this process stays in cgroup %s: %w", child, back))
		}
	}()
	err = inNewNamespace(func() (err error) {
		files, err = openFiles(dir)
		return err
	})
	return files, err
}

// move moves this process, whole, into a cgroup.
func move(dir string) error {
	file, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString("0")
	return errors.Join(err, file.Close())
}

// inNewNamespace runs f on a thread in a new cgroup namespace, whose root is the cgroup that the process is in.
func inNewNamespace(f func() error) error {
	done := make(chan error)
	go func() {
		// Unlocked only when the thread is as it was; otherwise it ends with this goroutine.
		runtime.LockOSThread()
		err := func() error {
			was, err := unix.Open("/proc/thread-self/ns/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("cgroup namespace: %w", err)
			}
			defer func() { _ = unix.Close(was) }()
			if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
				return fmt.Errorf("new cgroup namespace: %w", err)
			}
			err = f()
			if back := unix.Setns(was, unix.CLONE_NEWCGROUP); back != nil {
				return errors.Join(err, fmt.Errorf("leave the new cgroup namespace: %w", back))
			}
			runtime.UnlockOSThread()
			return err
		}()
		done <- err
	}()
	return <-done
}

// openFiles opens what of dir bounds something.
func openFiles(dir string) (map[string]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]int{}
	for _, entry := range entries {
		name := entry.Name()
		if !isLimit(name) {
			continue
		}
		// Not as *os.File, which makes them non-blocking: then the kernel leaves out what it has to wait for (6.16).
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return files, fmt.Errorf("open %s: %w", name, err)
		}
		files[name] = fd
	}
	return files, nil
}

func isLimit(name string) bool {
	switch name {
	case "cpu.max", "cpu.weight", "cpuset.cpus", "io.max", "memory.high", "memory.max", "memory.swap.max", "pids.max":
		return true
	}
	return strings.HasPrefix(name, "hugetlb.") && strings.HasSuffix(name, ".max")
}
