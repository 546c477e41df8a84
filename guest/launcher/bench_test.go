// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"os/exec"
	"syscall"
	"testing"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

// BenchmarkStart measures the start of a process to its end, without and with the launcher, and
// without a container runtime. The difference is what every container and every exec session pays.
func BenchmarkStart(b *testing.B) {
	box := newBox(b)
	install(b, helperPath, box.root+"/bin/true", 0o755) // ends at once, with a usage message

	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			cmd := exec.Command("/bin/true")
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: box.root}
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != 125 {
				b.Fatal(err)
			}
		}
	})
	b.Run("launcher", func(b *testing.B) {
		for b.Loop() {
			r := box.start(b, &plan.Plan{Filter: launchtest.NotifyFilter()}, []string{"true"}, nil)
			c, err := r.arm(b, nil)
			if err != nil {
				b.Fatal(err)
			}
			if status := r.wait(b); status != 125 {
				b.Fatalf("exit status %d", status)
			}
			c.Close()
		}
	})
}
