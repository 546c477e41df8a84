// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysctls are those of the whole machine that a node, being a privileged container, writes. Programs with different caches may run
// at the same time: the first one records the values, the last one puts them back.
type sysctls struct {
	root   string   // /proc/sys
	record string   // file with the values before; there while a program runs, and after one that was killed
	lock   *os.File // shared by the programs that run
}

var written = []string{
	// The kubelet: setupKernelTunables in pkg/kubelet/cm/container_manager_linux.go.
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	// systemd-sysctl, by the files in /usr/lib/sysctl.d of Debian's systemd.
	"kernel/pid_max", "fs/protected_fifos", "fs/protected_hardlinks", "fs/protected_regular", "fs/protected_symlinks",
}

// keep sees to it that the values are recorded, and says that they are in use until restore or this process's end. If nobody else
// uses them, a record is of a program that was killed, and is put back first.
func (s *sysctls) keep() (err error) {
	if s.lock, err = os.OpenFile(s.record+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600); err != nil {
		return err
	}
	for {
		if s.flock(unix.LOCK_EX|unix.LOCK_NB) == nil {
			if err := errors.Join(s.putBack(), s.write()); err != nil {
				return err
			}
		}
		if err := s.flock(unix.LOCK_SH); err != nil {
			return err
		}
		// The last other one may have ended before the lock was ours.
		if _, err := os.Stat(s.record); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// restore puts the values back unless another program still runs, which will.
func (s *sysctls) restore() error {
	err := s.flock(unix.LOCK_EX | unix.LOCK_NB)
	if err == nil {
		err = s.putBack()
	} else if errors.Is(err, unix.EWOULDBLOCK) {
		err = nil
	}
	return errors.Join(err, s.lock.Close())
}

func (s *sysctls) flock(how int) error {
	if err := unix.Flock(int(s.lock.Fd()), how); err != nil {
		return fmt.Errorf("lock %s: %w", s.lock.Name(), err)
	}
	return nil
}

func (s *sysctls) write() error {
	values := map[string]string{}
	for _, name := range written {
		value, err := os.ReadFile(filepath.Join(s.root, name))
		if err != nil {
			return err
		}
		values[name] = strings.TrimSpace(string(value))
	}
	content, err := json.Marshal(values)
	if err != nil {
		return err
	}
	beside := s.record + ".new" // a record that is half written would be no record
	if err := os.WriteFile(beside, content, 0o600); err != nil {
		return err
	}
	return os.Rename(beside, s.record)
}

// putBack writes what differs from the record, if there is one, and removes it.
func (s *sysctls) putBack() error {
	content, err := os.ReadFile(s.record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var values map[string]string
	if err := json.Unmarshal(content, &values); err != nil {
		return fmt.Errorf("%s: %w", s.record, err)
	}
	for name, value := range values {
		file := filepath.Join(s.root, name)
		now, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(now)) == value {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return fmt.Errorf("put back a sysctl: %w", err)
		}
	}
	return os.Remove(s.record)
}
