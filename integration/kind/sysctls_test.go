// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSysctls are sysctls in a temporary directory, all with the value "0".
func fakeSysctls(t *testing.T) sysctls {
	t.Helper()
	s := sysctls{root: t.TempDir(), record: filepath.Join(t.TempDir(), "sysctls")}
	for _, name := range written {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		s.set(t, name, "0")
	}
	return s
}

func (s *sysctls) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.root, name), []byte(value+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s *sysctls) want(t *testing.T, name, value string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil || strings.TrimSpace(string(content)) != value {
		t.Errorf("%s is %q (%v), want %s", name, content, err, value)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSysctlsArePutBack(t *testing.T) {
	s := fakeSysctls(t)
	must(t, s.keep())
	s.set(t, "kernel/panic", "10")
	must(t, s.restore())
	s.want(t, "kernel/panic", "0")
	s.want(t, "vm/overcommit_memory", "0")
	if _, err := os.Stat(s.record); err == nil {
		t.Error("the record is still there")
	}
}

// What a program that was killed has left is not taken for what was there before.
func TestSysctlsAfterAKill(t *testing.T) {
	killed := fakeSysctls(t)
	next := killed
	must(t, killed.keep())
	killed.set(t, "kernel/panic", "10")
	must(t, killed.lock.Close()) // as the kernel does
	must(t, next.keep())
	next.want(t, "kernel/panic", "0")
	next.set(t, "kernel/panic", "10")
	must(t, next.restore())
	next.want(t, "kernel/panic", "0")
}

// Of two programs the last one puts back, and what the first one recorded.
func TestSysctlsOfTwo(t *testing.T) {
	for name, firstEnds := range map[string]bool{"the first ends first": true, "the second ends first": false} {
		t.Run(name, func(t *testing.T) {
			first := fakeSysctls(t)
			second := first
			must(t, first.keep())
			first.set(t, "kernel/panic", "10")
			must(t, second.keep())
			ends, stays := &second, &first
			if firstEnds {
				ends, stays = stays, ends
			}
			must(t, ends.restore())
			first.want(t, "kernel/panic", "10")
			must(t, stays.restore())
			first.want(t, "kernel/panic", "0")
		})
	}
}

// The list is of names that this kernel knows.
func TestSysctlsExist(t *testing.T) {
	for _, name := range written {
		if _, err := os.Stat(filepath.Join("/proc/sys", name)); err != nil {
			t.Error(err)
		}
	}
}
