// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// budgeted is a handler whose pods may have little of the disk, and whose retention keeps even less.
const (
	budgeted = "metsuke-budgeted"
	budget   = `
segment_size = "128Ki"
pod_budget = "2Mi"
[audit.retention]
pod_size = "1Mi"
compress = false
`
)

// streamBytes is what the pod's streams have.
func (p *pod) streamBytes() (sum int64) {
	p.h.t.Helper()
	dirs, err := p.StreamDirs(p.handler)
	p.h.must(err)
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		p.h.must(err)
		for _, e := range entries {
			info, err := e.Info()
			p.h.must(err)
			sum += info.Size()
		}
	}
	return sum
}

// retain does one round of retention.
func (h *harness) retain(handler string) string {
	h.t.Helper()
	out, err := exec.CommandContext(h.ctx, stand.Metsuke("metsuke"), "audit", "retain", "--config", h.ConfigPath(handler)).CombinedOutput()
	if err != nil {
		h.t.Fatalf("metsuke audit retain: %v: %s", err, out)
	}
	return string(out)
}

// TestPodBudget: a container that fills its pod's part of the disk is killed, or goes on with a loss, as its profile says; nobody else
// notices. Retention makes room, and all that is left is proven.
func TestPodBudget(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		const full, most = 3 << 19, 2<<20 + 64<<10 + 64<<10 // 64 KiB more for the container, and what is signed
		other := h.pod(stand.PodConfig{Handler: budgeted}).idle()
		strict := h.pod(stand.PodConfig{Handler: budgeted})
		lenient := h.pod(stand.PodConfig{Handler: budgeted, Annotations: map[string]string{"metsuke.dev/profile": "lenient"}})
		loop := []string{"sh", "-c", "while :; do echo x > /tmp/f; echo turn; sleep 0.01; done"}
		killed := strict.run(stand.ContainerConfig{Command: loop})
		killed.exited()
		if n := strict.streamBytes(); n > most || n < full {
			t.Errorf("the streams of the pod that was killed have %d bytes", n)
		}
		h.eventually("the end of the container that was killed", func() error {
			for _, e := range strict.events("main") {
				if e.Kind == "exit" && e.Fields["cause"] == "loss" {
					return nil
				}
			}
			return errors.New("there is none for its loss")
		})
		spared := lenient.run(stand.ContainerConfig{Command: loop})
		turns := func() int { return strings.Count(spared.written(), "turn") }
		h.eventually("the other one has no room, and goes on", func() error {
			n := turns()
			if lenient.streamBytes() < full {
				return errors.New("it has room")
			}
			before := lenient.streamBytes()
			for m := turns(); m < n+200; m = turns() { // with more records than there is room for in what has begun
				if h.ctx.Err() != nil {
					return h.ctx.Err()
				}
				time.Sleep(10 * time.Millisecond)
			}
			if now := lenient.streamBytes(); now > before+64<<10 {
				return fmt.Errorf("it has written %d bytes meanwhile", now-before)
			}
			return nil
		})
		if n := lenient.streamBytes(); n > most {
			t.Errorf("the streams of the pod that goes on have %d bytes", n)
		}
		if out := other.exec("echo", "fine"); out != "fine\n" {
			t.Errorf("another container: %q", out)
		}
		if out := h.retain(budgeted); !strings.Contains(out, "removed: segments 1 to ") || !strings.Contains(out, "(pod_size)") {
			t.Errorf("retention says %q", out)
		}
		h.eventually("loss record of the container that went on", func() error {
			for _, e := range lenient.events("main") {
				if n, ok := e.Fields["count"].(float64); e.Kind == "loss" && ok && n > 0 {
					return nil
				}
			}
			return errors.New("there is none")
		})
		if status, err := spared.Status(h.ctx); err != nil || status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("onLoss continue: %v %v", status.GetState(), err)
		}
		if err := spared.Stop(h.ctx, 0); err != nil {
			t.Fatal(err)
		}
		lenient.verify("proven", "note removed: removals")
		strict.verify("proven")
		strict.remove()
		lenient.remove()
	})
}
