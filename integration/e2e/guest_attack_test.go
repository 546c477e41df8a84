// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// What a workload tries against a supervisor that is a process of its own container: root there, with a container's default
// capabilities, under a profile that denies none of the calls it takes. The promises are listed in docs/threat-model.md.

// attacked is the handler whose profiles see files written and deny one call, and nothing else.
const attacked = "metsuke-attacked"

const attackedProfiles = `
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: attacked}
spec:
  seccomp: {deny: [{id: no-parent, syscalls: [getppid], errno: EACCES}]}
  audit: {classes: [exec, file-write], onLoss: kill}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: lenient}
spec:
  seccomp: {deny: [{id: no-parent, syscalls: [getppid], errno: EACCES}]}
  audit: {classes: [exec, file-write], onLoss: continue}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: buffered}
spec:
  audit: {classes: [exec, file-write], delivery: buffered, onLoss: kill}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: synced}
spec:
  audit: {classes: [exec, file-write], durability: synced, onLoss: kill}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: any}
spec: {namespaces: ["*"], default: attacked, allowed: [attacked, lenient, buffered, synced]}
`

// inGuest ends a test that speaks of residents, where supervisors run in the shim.
func inGuest(t *testing.T) {
	t.Helper()
	if placement != stand.Guest && delegate != stand.Kata {
		t.Skip("speaks of supervisors in the container; these tests have them on the host")
	}
}

// lines fails the test unless the output has each of the lines.
func lines(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains("\n"+out, "\n"+line+"\n") {
			t.Errorf("no line %q in the output:\n%s", line, out)
		}
	}
}

// saw waits until the container has written a text.
func (c *container) saw(text string) {
	c.p.h.t.Helper()
	c.p.h.eventually("output "+text, func() error {
		if out := c.written(); !strings.Contains(out, text) {
			return fmt.Errorf("it has written %q", out)
		}
		return nil
	})
}

// wrote says that an event is about a file that was written.
func wrote(path string) func(stand.Event) bool {
	return func(e stand.Event) bool { return e.Class == "file-write" && strings.Contains(e.Raw, `"`+path+`"`) }
}

// loses waits for the record of the resident's end.
func (p *pod) loses(name, onLoss string) {
	p.h.t.Helper()
	p.h.eventually("loss record", func() error {
		for _, e := range p.events(name) {
			if e.Kind == "loss" && e.Fields["reason"] == "supervisor-died" && e.Fields["onLoss"] == onLoss {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// Root can kill the resident. What it would have answered is refused from then on, nobody else can answer in its place, and the
// container is killed, with the loss and its cause on record.
func TestResidentKilled(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		c := p.run(stand.ContainerConfig{Command: []string{"sh", "-c", "sleep 1; exec workload resident orphaned /tmp/f"}})
		if status := c.wait(); status.GetExitCode() != 137 {
			t.Errorf("exit status %d", status.GetExitCode())
		}
		lines(t, c.written(), "kill: done", "openat: ENOSYS", "getppid: ENOSYS", "seccomp: ENOSYS", "orphaned")
		p.loses("main", "kill")
		h.eventually("exit record", func() error {
			events := p.events("main")
			if last := stand.Last(events); last.Kind != "exit" || last.Fields["cause"] != "loss" {
				return fmt.Errorf("the last record is %s", last.Raw)
			}
			return nil
		})
		if found := find(p.events("main"), wrote("/tmp/f")); len(found) != 0 {
			t.Errorf("recorded: %s", found[0].Raw)
		}
	})
}

// With onLoss continue the container goes on without its resident, unable to do anything that should have been seen; and nobody
// can add a process to it.
func TestResidentKilledLeniently(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked, Annotations: map[string]string{"metsuke.dev/profile": "lenient"}})
		c := p.run(stand.ContainerConfig{Command: []string{"sh", "-c", "sleep 1; exec workload resident orphaned /tmp/f"}})
		c.saw("orphaned\n")
		lines(t, c.written(), "kill: done", "openat: ENOSYS", "getppid: ENOSYS", "seccomp: ENOSYS")
		p.loses("main", "continue")
		if result, err := c.Exec(h.ctx, "true"); err == nil {
			t.Errorf("an exec session begins without a supervisor: %+v", result)
		}
		if status, err := c.Status(h.ctx); err != nil || status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %v, %v", status.GetState(), err)
		}
	})
}

// Stopped, the resident answers nobody: calls that it should answer stand still. When it goes on, they are recorded.
func TestResidentStopped(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		out := p.run(stand.ContainerConfig{Command: []string{"workload", "resident", "stopped", "/tmp/f"}}).output()
		lines(t, out, "stop: done", "continue: done", "openat: <nil>", "getppid: permission denied")
		if strings.Contains(out, "not held up") {
			t.Error(out)
		}
		want(t, p.events("main"), "the file", wrote("/tmp/f"))
		want(t, p.events("main"), "the denial", denied("getppid", "no-parent"))
	})
}

// No other signal does anything, and neither root nor a user gets into the resident or takes its resources away.
func TestResidentIsOutOfReach(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		for name, user := range map[string]int64{"root": 0, "user": 4242} {
			script := "workload resident enter; workload resident limit; echo x > /tmp/f; workload syscall getppid"
			if user == 0 {
				script = "workload resident signals; " + script
			}
			c := p.run(stand.ContainerConfig{Name: name, Command: []string{"sh", "-c", script}, Modify: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: user}
			}})
			out := c.output()
			attempts := 0
			for line := range strings.Lines(out) {
				attempt, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
				if attempts++; result == "done" && attempt != "signals" {
					t.Errorf("%s: %s", name, line)
				}
			}
			if attempts < 25 {
				t.Errorf("%s: only %d attempts:\n%s", name, attempts, out)
			}
			lines(t, out, "getppid: EACCES")
			if e := want(t, p.events(name), "the file", wrote("/tmp/f")); e.Comm != "sh" || e.Fields["exe"] == nil {
				t.Errorf("%s: the caller is not in %s", name, e.Raw)
			}
		}
	})
}

// Slow and out of favour, the resident does what it is for. (In a container that has no task left: TestNoTasksLeft of guest/resident.)
func TestResidentStarved(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		const files = 50
		c := p.shell(fmt.Sprintf("workload resident starve; (while :; do :; done) & (while :; do :; done) & "+
			"for i in $(seq %d); do echo x > /tmp/$i; done; echo written; wait", files))
		c.saw("written\n")
		if out := c.exec("sh", "-c", "echo x > /tmp/exec; grep Seccomp: /proc/self/status"); field(out, "Seccomp") != "2" {
			t.Errorf("exec: %s", out)
		}
		events := p.events("main")
		for i := range files {
			want(t, events, "file", wrote(fmt.Sprint("/tmp/", i+1)))
		}
		want(t, events, "the session's file", wrote("/tmp/exec"))
	})
}

// A process of the workload's that has a launcher's token, and runs the helper, is not taken for a launcher; nor is it a resident.
func TestLauncherIsNotImpersonated(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		out := p.run(stand.ContainerConfig{Name: "helper", Command: []string{"sh", "-c",
			"cd /.metsuke*; ./guest audit </dev/null; echo audit $?; ./guest run TOKEN -- true; echo run $?; " +
				"{ rm -f sock guest; touch x; mkdir y; mv sock z; mv $PWD /gone; umount $PWD; } 2>/dev/null; ls; exit 0"}}).output()
		lines(t, out, "audit 125", "run 255", "guest", "sock")
		if n := strings.Count(out, "\n"); n != 5 { // with what audit says on stderr
			t.Errorf("%d lines:\n%s", n, out)
		}
		c := p.run(stand.ContainerConfig{Command: []string{"sh", "-c", "workload impersonate 3 300; sleep 1000"}})
		c.saw("ready\n")
		for !strings.Contains(c.written(), "stolen ") {
			if out := c.exec("cat", "/proc/self/status"); field(out, "Seccomp") != "2" {
				t.Errorf("exec: %s", out)
			}
		}
		if out := c.written(); strings.Contains(out, "impersonated") || !strings.Contains(out, "stolen true") {
			t.Error(out)
		}
	})
}

// An image can lead /.metsuke, by a symbolic link, into a volume in which another container of the pod changes things: what it puts
// there must never run as the helper, which has no filter and more capabilities than the workload.
func TestImageLeadsHelperAstray(t *testing.T) {
	const image = "stand.test/astray:1"
	eachVersion(t, func(t *testing.T, h *harness) {
		files := stand.NewFiles().Busybox().Symlink("/.metsuke", "/volume/a")
		if err := h.AddImage(image, stand.Image{Files: files, Command: []string{"sh"}}); err != nil {
			t.Fatal(err)
		}
		volume := filepath.Join(h.Dir, "volume")
		defer os.RemoveAll(volume)
		for _, dir := range []string{"a", "b"} {
			if err := os.MkdirAll(filepath.Join(volume, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		planted := "#!/bin/sh\ngrep -E 'Seccomp:|CapEff:' /proc/self/status >> /volume/planted\n"
		if err := os.WriteFile(filepath.Join(volume, "b", "guest"), []byte(planted), 0o755); err != nil {
			t.Fatal(err)
		}
		shared := func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/volume", HostPath: volume}}
		}
		p := h.pod(stand.PodConfig{Handler: attacked})
		changes := p.run(stand.ContainerConfig{Name: "changes", Command: []string{"workload", "exchange", "/volume/a", "/volume/b", "300"}, Modify: shared})
		changes.saw("ready\n")
		for i := range 12 {
			c := p.create(stand.ContainerConfig{
				Name: fmt.Sprint("astray-", i), Image: image, Command: []string{"sh", "-c", "echo ran; grep Seccomp: /proc/self/status"}, Modify: shared,
			})
			err := c.Start(h.ctx)
			if err == nil {
				c.wait()
			}
			if out := c.written(); err == nil && field(out, "Seccomp") != "2" {
				t.Errorf("no filter: %s", out)
			}
		}
		if found, err := os.ReadFile(filepath.Join(volume, "planted")); err == nil {
			t.Errorf("what the pod put into the helper's place has run:\n%s", found)
		}
	})
}
