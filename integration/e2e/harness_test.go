// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// limit bounds a test, and what one test waits for: generous, because time is never what is tested here.
const limit = 6 * time.Minute

// leakPatience is how long what a pod leaves may take to go: what stays is a leak, so it only delays a failure.
const leakPatience = 2 * time.Minute

// stands are the running ones, one a version, made when a test first needs it.
var stands = map[stand.Version]*stand.Stand{}

// eachVersion runs the test once on each containerd version, as a subtest.
func eachVersion(t *testing.T, test func(t *testing.T, h *harness)) {
	t.Helper()
	for _, version := range stand.Versions {
		t.Run("containerd-"+string(version), func(t *testing.T) { test(t, newHarness(t, version)) })
	}
}

// harness is a stand for the length of one test. Its methods fail the test on any error.
type harness struct {
	*stand.Stand
	t       *testing.T
	ctx     context.Context
	granted map[string]bool // kinds of leaks that the test may leave: see grantLeaksOf
}

// newHarness makes a harness, and sees to it that the test leaves nothing behind.
func newHarness(t *testing.T, version stand.Version) *harness {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	s, ok := stands[version]
	if !ok {
		var err error
		s, err = stand.Start(ctx, stand.Options{Version: version, Delegate: delegate, Handlers: handlers()})
		if err != nil {
			t.Fatal(err)
		}
		stands[version] = s
	}
	h := &harness{Stand: s, t: t, ctx: ctx}
	before := stand.Snap()
	mark := len(h.log())
	consoles := s.GuestConsoles()
	t.Cleanup(func() {
		// The test's own context may have ended.
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := s.RemoveAllPods(ctx); err != nil {
			t.Errorf("remove the test's pods: %v", err)
		}
		ctx, cancel = context.WithTimeout(context.Background(), leakPatience)
		defer cancel()
		for _, leak := range stand.Leaks(ctx, before, h.granted) {
			t.Errorf("left behind: %s", leak)
		}
		if t.Failed() {
			t.Logf("containerd's log of this test (end):\n%s", tail(h.log()[mark:], 60))
			for _, console := range s.GuestConsoles() {
				if content, err := os.ReadFile(console); err == nil && !slices.Contains(consoles, console) {
					t.Logf("%s (end):\n%s", console, tail(string(content), 40))
				}
			}
		}
	})
	return h
}

// grantLeaksOf lets the test leave what the delegate alone leaves of a fault: nothing under runc, but much under Kata's driver
// of remote machines, with which the `delete` of a shim that was killed fails (kata/vmm/daemon.go).
func (h *harness) grantLeaksOf(fault func(*pod)) {
	h.t.Helper()
	before := stand.Snap()
	p := h.pod(stand.PodConfig{})
	fault(p)
	h.removeWhateverIsLeft(p)
	ctx, cancel := context.WithTimeout(h.ctx, 10*time.Second)
	defer cancel()
	h.granted = map[string]bool{}
	for _, leak := range stand.Leaks(ctx, before, nil) {
		h.granted[stand.LeakKind(leak)] = true
	}
}

func (h *harness) log() string {
	content, err := os.ReadFile(h.LogPath())
	if err != nil {
		return ""
	}
	return string(content)
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// closeStands ends what runs; a test's leftovers were its own failure, the stand's are this one's.
func closeStands(code int) int {
	for version, s := range stands {
		if err := s.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: close the stand of containerd %s: %v\n", version, err)
			code = max(code, 1)
		}
	}
	return code
}

// pod runs a pod, which the end of the test removes.
func (h *harness) pod(config stand.PodConfig) *pod {
	h.t.Helper()
	p, err := h.RunPod(h.ctx, config)
	if err != nil {
		h.t.Fatal(err)
	}
	return &pod{Pod: p, h: h, handler: config.Handler}
}

type pod struct {
	*stand.Pod
	h       *harness
	handler string
}

// create creates a container; run starts it too.
func (p *pod) create(config stand.ContainerConfig) *container {
	p.h.t.Helper()
	c, err := p.Create(p.h.ctx, config)
	if err != nil {
		p.h.t.Fatal(err)
	}
	return &container{Container: c, p: p}
}

func (p *pod) run(config stand.ContainerConfig) *container {
	p.h.t.Helper()
	c := p.create(config)
	if err := c.Start(p.h.ctx); err != nil {
		p.h.t.Fatal(err)
	}
	return c
}

// shell runs a container that executes a script in busybox's shell.
func (p *pod) shell(script string) *container {
	p.h.t.Helper()
	return p.run(stand.ContainerConfig{Command: []string{"sh", "-c", script}})
}

// idle runs a container that waits, to exec in.
func (p *pod) idle() *container {
	p.h.t.Helper()
	return p.run(stand.ContainerConfig{Command: []string{"workload", "pause"}})
}

// remove removes the pod before the test ends.
func (p *pod) remove() {
	p.h.t.Helper()
	if err := p.Remove(p.h.ctx); err != nil {
		p.h.t.Fatal(err)
	}
}

// events reads a container's stream.
func (p *pod) events(container string) []stand.Event {
	p.h.t.Helper()
	events, err := p.Events(p.handler, container)
	if err != nil {
		p.h.t.Fatal(err)
	}
	return events
}

type container struct {
	*stand.Container
	p *pod
}

// wait waits for the exit and returns its status.
func (c *container) wait() *runtimeapi.ContainerStatus {
	c.p.h.t.Helper()
	status, err := c.Wait(c.p.h.ctx)
	if err != nil {
		c.p.h.t.Fatal(err)
	}
	return status
}

// output waits for an exit with status 0, and returns what was written.
func (c *container) output() string {
	c.p.h.t.Helper()
	status := c.wait()
	out := c.written()
	if status.GetExitCode() != 0 {
		c.p.h.t.Fatalf("exit status %d (%s %s), output:\n%s", status.GetExitCode(), status.GetReason(), status.GetMessage(), out)
	}
	return out
}

// written is the output so far.
func (c *container) written() string {
	c.p.h.t.Helper()
	out, err := c.Output()
	if err != nil {
		c.p.h.t.Fatal(err)
	}
	return out
}

// exec runs a command in the container; its exit status must be 0.
func (c *container) exec(command ...string) string {
	c.p.h.t.Helper()
	result, err := c.Exec(c.p.h.ctx, command...)
	if err != nil {
		c.p.h.t.Fatal(err)
	}
	if result.Status != 0 {
		c.p.h.t.Fatalf("%q: status %d, stderr %q", command, result.Status, result.Stderr)
	}
	return result.Stdout
}

// eventually waits until the condition is nil, and fails with its last error.
func (h *harness) eventually(what string, condition func() error) {
	h.t.Helper()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-h.ctx.Done():
			h.t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// field is the value of a line such as "Seccomp:\t2" of /proc/PID/status.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
