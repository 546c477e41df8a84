// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"metsuke.dev/metsuke/integration/stand"
)

// A container that makes audited calls without pause is paused and resumed. Where the supervisor is in the container, it is frozen
// with it, maybe with a call of the workload's in its hands, which then cannot be: runc would wait for that, so there a Pause is
// refused. Whether it succeeds or not: the container goes on afterwards, each call has come to its end with one record, and nothing
// is lost.
func TestPause(t *testing.T) {
	const turns = 6
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		c := p.shell("loop() { i=0; while [ ! -e /stop ]; do i=$((i+1)); echo x > /tmp/f; workload syscall getppid; done; echo made $i; }; " +
			"mkfifo /end; loop & loop & loop; wait; echo all; read x < /end")
		task, closeClient := c.task()
		defer closeClient()
		paused := 0
		p.recordsGrow("main", "at first")
		for turn := range turns {
			begin := time.Now()
			err := task.Pause(h.ctx)
			took := time.Since(begin)
			status, stateErr := task.Status(h.ctx)
			if stateErr != nil {
				t.Fatalf("after Pause (%v): %v", err, stateErr)
			}
			t.Logf("Pause: %v after %v; the container is %s", err, took, status.Status)
			if refused := placement == stand.Guest && delegate == stand.Runc; refused != (err != nil && strings.Contains(err.Error(), "placement host")) {
				t.Errorf("Pause: %v, want it to be refused: %v", err, refused)
			}
			if err != nil {
				if status.Status != containerd.Running {
					t.Errorf("Pause failed with %v and left the container %s", err, status.Status)
				}
				p.recordsGrow("main", fmt.Sprintf("turn %d, after a Pause that failed", turn))
				continue
			}
			if paused++; status.Status != containerd.Paused {
				t.Errorf("Pause succeeded and left the container %s", status.Status)
			}
			if err := task.Resume(h.ctx); err != nil {
				t.Fatalf("Resume: %v", err)
			}
			p.recordsGrow("main", fmt.Sprintf("turn %d, after Resume", turn))
		}
		t.Logf("%d of %d times paused", paused, turns)
		c.exec("touch", "/stop")
		c.saw("all\n")
		made, refused := 0, 0
		for line := range strings.Lines(c.written()) {
			n := 0
			if _, err := fmt.Sscanf(line, "made %d\n", &n); err == nil {
				made += n
			} else if line == "getppid: EACCES\n" {
				refused++
			}
		}
		if made == 0 || refused != made {
			t.Errorf("%d of %d calls were denied", refused, made)
		}
		h.eventually("a record of each call", func() error {
			written, refused := 0, 0
			for _, e := range p.events("main") { // a gap in seq is an error
				if wrote("/tmp/f")(e) {
					written++
				} else if e.Syscall == "getppid" && e.Comm == "workload" { // the shell asks for its parent too
					refused += callsOf(e)
				}
			}
			if written != made || refused != made {
				return fmt.Errorf("%d files and %d denials, want %d of each", written, refused, made)
			}
			return nil
		})
		for _, e := range find(p.events("main"), func(e stand.Event) bool { return e.Kind == "loss" }) {
			t.Errorf("in the stream: %s", e.Raw)
		}
	})
}

// callsOf is how many calls a record stands for.
func callsOf(e stand.Event) int {
	if n, ok := e.Fields["count"].(float64); ok {
		return int(n)
	}
	return 1
}

// recordsGrow waits until the container has more records than now.
func (p *pod) recordsGrow(name, when string) {
	p.h.t.Helper()
	before := len(p.events(name))
	p.h.eventually(when+": more records", func() error {
		if n := len(p.events(name)); n <= before {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}
