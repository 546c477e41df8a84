// SPDX-License-Identifier: Apache-2.0

// Package launchtest is what tests of the launcher share: the helper built on the spot, filters,
// and a supervisor that answers every notification without looking.
package launchtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

// Build compiles the main package pkg (an import path, or a directory with ./) into dir as the
// release does, static and stripped, and returns the path of the executable, mode 0711 as in a
// bundle.
func Build(dir, pkg string) (string, error) {
	out := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return out, unix.Chmod(out, 0o711)
}

// Watch makes the cache of go test depend on the sources of HelperPackage, which no test imports:
// it looks at each. Tests call it from within a test, where the cache listens.
func Watch(t testing.TB) {
	t.Helper()
	watch.Do(func() {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.Dir}}{{end}}", HelperPackage).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", HelperPackage, err)
		}
		for dir := range strings.FieldsSeq(string(out)) {
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if _, err := os.Stat(filepath.Join(dir, f.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

var watch sync.Once

// HelperPackage is the main package of the helper.
const HelperPackage = "metsuke.dev/metsuke/cmd/metsuke-guest"

// Values of struct seccomp_data and of filters (<linux/seccomp.h>, <linux/filter.h>).
const (
	ldAbs  = 0x20 // BPF_LD | BPF_W | BPF_ABS
	jeq    = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	ret    = 0x06 // BPF_RET | BPF_K
	allow  = 0x7fff0000
	notify = 0x7fc00000
)

// Exec is execve's number, which every filter of Metsuke notifies.
const Exec = unix.SYS_EXECVE

// NotifyFilter returns a filter that notifies execve and the system calls nrs of the native
// architecture, and allows the rest.
func NotifyFilter(nrs ...int) []byte {
	f := plan.AppendInsn(nil, ldAbs, 0, 0, 0)
	for _, nr := range append([]int{Exec, unix.SYS_EXECVEAT}, nrs...) {
		f = plan.AppendInsn(f, jeq, 0, 1, uint32(nr))
		f = plan.AppendInsn(f, ret, 0, 0, notify)
	}
	return plan.AppendInsn(f, ret, 0, 0, allow)
}

// NotifyAllFilter returns a filter that notifies every system call.
func NotifyAllFilter() []byte { return plan.AppendInsn(nil, ret, 0, 0, notify) }
