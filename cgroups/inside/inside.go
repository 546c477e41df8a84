// SPDX-License-Identifier: Apache-2.0

// Package inside sets limits of a container from within the container, through a cgroup2 file system that is mounted there
// for a moment. It is for delegates that drop limits on their way into a guest, is linked into the helper, and so imports
// little.
//
// # How the files are opened
//
// A cgroup2 file system mounted with nsdelegate (what systemd and Kata's agent do) takes no write to most files of a cgroup
// namespace's own root from inside it: EPERM, whoever asks (kernel/cgroup/cgroup.c, cgroup_file_write; Linux 4.13).
// Since 5.16 (commit e57457641613, and the stable kernels of early 2022) the namespace that counts is the one in which the
// file was opened, not the one in which it is written; and the only cgroup that is refused is that namespace's root. So
// [Open] makes a child cgroup, moves this process into it for a moment, makes on one thread a namespace whose root the
// child is, and opens the files there: they are above that root, and the mount still shows them. Then everything is undone.
// The descriptors stay good, also after the file system is unmounted (with MNT_DETACH, since they hold it).
//
// It takes CAP_SYS_ADMIN. A workload that has it too would do the same with the mount: unmount that before one runs. On a
// kernel that closes this way, what [Cgroup.Apply] writes is refused with EPERM.
package inside

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Setting is one line to be written to one file of the cgroup, such as {"pids.max", "100"}. The forms are those of
// Documentation/admin-guide/cgroup-v2.rst.
type Setting struct{ File, Value string }

// A Value is what one file of the cgroup has, or why that cannot be told.
type Value struct{ File, Text, Problem string }

// maxText bounds what is read of one file.
const maxText = 4096

// Cgroup is the container's own cgroup, by descriptors of its limits' files. Its methods are safe for concurrent use. They
// block as long as the kernel does, which reclaims memory within a write that lowers memory.max or memory.high.
type Cgroup struct {
	mu    sync.RWMutex
	files map[string]int // guarded by mu; empty after Close

	refusing sync.Mutex
	refused  map[string]error // by file; guarded by refusing
}

// Apply writes the settings in order, all of them even if one fails: a file that this kernel or this cgroup does not have, a
// value that the kernel does not take. What failed is told by Read, until the file is written again.
func (c *Cgroup) Apply(settings []Setting) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	refused := map[string]error{}
	for _, s := range settings {
		fd, err := c.file(s.File)
		if err == nil {
			err = retry(func() error { _, err := unix.Pwrite(fd, []byte(s.Value), 0); return err })
		}
		if err != nil {
			err = fmt.Errorf("write %q to %s: %w", s.Value, s.File, err)
		}
		refused[s.File] = errors.Join(refused[s.File], err) // io.max takes several
	}
	c.refusing.Lock()
	defer c.refusing.Unlock()
	if c.refused == nil {
		c.refused = map[string]error{}
	}
	maps.Copy(c.refused, refused)
	maps.DeleteFunc(c.refused, func(_ string, err error) bool { return err == nil })
}

// Read returns what the kernel has in each of the named files, without the last newline; and of these, and of all other files, the
// problem with the last setting that was applied to it, if that failed.
func (c *Cgroup) Read(names []string) []Value {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.refusing.Lock()
	refused := maps.Clone(c.refused)
	c.refusing.Unlock()
	values := make([]Value, 0, len(names)+len(refused))
	for _, name := range names {
		text, err := c.read(name)
		if refused[name] != nil {
			text, err = "", refused[name]
			delete(refused, name)
		}
		values = append(values, value(name, text, err))
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		values = append(values, value(name, "", refused[name]))
	}
	return values
}

func value(file, text string, err error) Value {
	v := Value{File: file, Text: text}
	if err != nil {
		v.Problem = err.Error()
	}
	return v
}

func (c *Cgroup) read(name string) (string, error) {
	fd, err := c.file(name)
	if err != nil {
		return "", err
	}
	var text [maxText + 1]byte
	n := 0
	for n < len(text) {
		var got int
		err := retry(func() (err error) { got, err = unix.Pread(fd, text[n:], int64(n)); return err })
		if err != nil {
			return "", err
		}
		if got == 0 {
			return strings.TrimSuffix(string(text[:n]), "\n"), nil
		}
		n += got
	}
	return "", fmt.Errorf("longer than %d bytes", maxText)
}

func (c *Cgroup) file(name string) (int, error) {
	fd, ok := c.files[name]
	if !ok {
		return -1, os.ErrNotExist
	}
	return fd, nil
}

// Close closes the descriptors. Methods called later find no file.
func (c *Cgroup) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var problems []error
	for _, fd := range c.files {
		problems = append(problems, unix.Close(fd))
	}
	c.files = nil
	return errors.Join(problems...)
}

// retry calls f again when a signal came in between: Go's own preemption sends them.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
