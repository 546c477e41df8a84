// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// A workload that uses up its container's memory may have the kernel kill the resident in its place: root can make it the first
// choice. Then that is a loss, and the container is killed. Otherwise the resident lives, and the kill of the workload's process is on
// record. In no case does the container go on unsupervised.
func TestResidentUnderMemoryPressure(t *testing.T) {
	inGuest(t)
	// Afterwards the shell waits by calls that are not audited: without a resident those that are fail.
	const before, after = "mkfifo /tmp/wait; ", "; echo after $?; echo x > /tmp/after && echo made; echo written; read x < /tmp/wait"
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		for name, script := range map[string]string{
			"child":         "workload memory 500",
			"child-starved": "workload resident starve; workload memory 500",
			"files":         "dd if=/dev/zero of=/dev/shm/f bs=1M count=60; rm /dev/shm/f",
			"files-starved": "workload resident starve; dd if=/dev/zero of=/dev/shm/f bs=1M count=60; rm /dev/shm/f",
		} {
			c := p.run(stand.ContainerConfig{
				Name: name, Command: []string{"sh", "-c", before + script + after}, Limits: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 48 << 20},
			})
			running := true
			h.eventually(name+": the end of the pressure", func() error {
				status, err := c.Status(h.ctx)
				if err != nil {
					return err
				}
				if running = status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING; running && !strings.Contains(c.written(), "written\n") {
					return fmt.Errorf("the container is %s, and has written %q", status.GetState(), c.written())
				}
				return nil
			})
			if out := c.written(); strings.Contains(out, "ok ") {
				t.Errorf("%s: no limit held: %s", name, out)
			}
			if running {
				// The resident lives, or its end has not been seen yet: then what it would have recorded has failed.
				p.outlives(name, c)
			} else {
				p.fell(name, c)
			}
		}
	})
}

// outlives waits for one of the ends that a container may have that went on after the pressure.
func (p *pod) outlives(name string, c *container) {
	p.h.t.Helper()
	result, err := c.Exec(p.h.ctx, "sh", "-c", "echo x > /tmp/exec; cat /proc/self/status")
	if err != nil {
		p.h.t.Logf("%s: exec: %v", name, err)
		c.exited()
		p.fell(name, c)
		return
	}
	p.h.t.Logf("%s: the resident lives", name)
	if field(result.Stdout, "Seccomp") != "2" {
		p.h.t.Errorf("%s: exec: %+v", name, result)
	}
	events := p.events(name)
	want(p.h.t, events, name+": the file", wrote("/tmp/after"))
	want(p.h.t, events, name+": the session's file", wrote("/tmp/exec"))
	p.h.eventually(name+": oom record", func() error {
		if !p.has(name, func(e stand.Event) bool { return e.Kind == "oom" }) {
			return errors.New("there is none")
		}
		return nil
	})
	if p.has(name, func(e stand.Event) bool { return e.Kind == "loss" }) {
		p.h.t.Errorf("%s: there is a loss record, and the container goes on", name)
	}
}

// fell checks the records of a container that was killed: by the kernel with its first process, or by us for its resident.
func (p *pod) fell(name string, c *container) {
	p.h.t.Helper()
	p.h.eventually(name+": exit record", func() error {
		events := p.events(name)
		if last := stand.Last(events); last.Kind != "exit" {
			return fmt.Errorf("the last record is %s", last.Raw)
		}
		return nil
	})
	events := p.events(name)
	last := stand.Last(events)
	p.h.t.Logf("%s: %s\n%s", name, last.Raw, c.written())
	cause := last.Fields["cause"]
	switch {
	case cause == "oom" && p.has(name, func(e stand.Event) bool { return e.Kind == "oom" }):
	case cause == "loss" && p.has(name, func(e stand.Event) bool { return e.Kind == "loss" && e.Fields["onLoss"] == "kill" }):
	default:
		p.h.t.Errorf("%s: the records do not say why the container ended: %s", name, last.Raw)
	}
	if strings.Contains(c.written(), "made\n") && !p.has(name, wrote("/tmp/after")) {
		p.h.t.Errorf("%s: a file was written without a record", name)
	}
}

func (p *pod) has(name string, fits func(stand.Event) bool) bool {
	return len(find(p.events(name), fits)) > 0
}
