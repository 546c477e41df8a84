// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

const ourShim = "metsuke"

// exited waits until CRI knows that a container has ended.
func (c *container) exited() {
	c.p.h.t.Helper()
	c.p.h.eventually("end of the container", func() error {
		status, err := c.Status(c.p.h.ctx)
		if err == nil && status.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
			err = fmt.Errorf("state %s", status.GetState())
		}
		return err
	})
}

// killShim runs a container in the pod, and kills the pod's shim of that name.
func (p *pod) killShim(name string) {
	p.h.t.Helper()
	c := p.idle()
	pids := p.Shims(name)
	if len(pids) != 1 {
		p.h.t.Fatalf("%s: processes %v, want one", name, pids)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		p.h.t.Fatal(err)
	}
	c.exited()
}

func killDelegate(p *pod) { p.killShim(delegate.Name) }

// Our shim killed: the pod ends as if its delegate had been killed, nothing stays, and the stream says what is missing.
func TestShimKilled(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		h.grantLeaksOf(killDelegate)
		for _, shim := range []string{ourShim, delegate.Name} {
			p := h.pod(stand.PodConfig{Handler: baseline})
			p.killShim(shim)
			h.eventually("loss record", func() error {
				if !slices.ContainsFunc(p.events("main"), func(e stand.Event) bool { return e.Kind == "loss" }) {
					return errors.New("there is none")
				}
				return nil
			})
			p.remove() // and the harness looks for what is left
		}
	})
}

// Pods outlive containerd, and so do their streams.
func TestContainerdKilled(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.idle()
		before := len(p.events("main"))
		if err := h.StopContainerd(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := h.StartContainerd(h.ctx); err != nil {
			t.Fatal(err)
		}
		if out := c.exec("sh", "-c", "unshare -m true 2>/dev/null; echo back"); out != "back\n" {
			t.Errorf("exec wrote %q", out)
		}
		want(t, p.events("main")[before:], "denied after the restart", denied("unshare", "no-namespaces"))
		p.run(stand.ContainerConfig{Name: "later", Command: []string{"true"}}).output()
	})
}

// containerd 1.7 is replaced by 2.4 under running pods: they live on, and the pods after them run too.
func TestContainerdUpgraded(t *testing.T) {
	t.Cleanup(func() { // after the harness has looked for leaks: what 2.4 has written is nothing for 1.7
		if err := stands[stand.V1].Close(); err != nil {
			t.Error(err)
		}
		delete(stands, stand.V1)
	})
	h := newHarness(t, stand.V1)
	p := h.pod(stand.PodConfig{Handler: baseline})
	c := p.idle()
	before := len(p.events("main"))
	if err := h.Upgrade(h.ctx, stand.V2); err != nil {
		t.Fatal(err)
	}
	if out := c.exec("sh", "-c", "unshare -m true 2>/dev/null; echo still here"); out != "still here\n" {
		t.Errorf("exec wrote %q", out)
	}
	want(t, p.events("main")[before:], "denied after the upgrade", denied("unshare", "no-namespaces"))
	p.run(stand.ContainerConfig{Name: "later", Command: []string{"true"}}).output()
	h.pod(stand.PodConfig{Handler: baseline}).shell("true").output()
}

// A machine that went down: everything of the pods is dead, and its leftovers are on disk when containerd comes back.
func TestEverythingKilled(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		killEverything := func(p *pod) {
			c := p.idle()
			if err := h.StopContainerd(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"containerd-shim-", "workload pause"} {
				for _, pid := range stand.Processes(name) {
					if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
						t.Fatal(err)
					}
				}
			}
			if err := h.StartContainerd(h.ctx); err != nil {
				t.Fatal(err)
			}
			c.exited()
		}
		h.grantLeaksOf(killEverything)
		killEverything(h.pod(stand.PodConfig{Handler: baseline}))
	})
}

// Killed at any moment of a pod's start, our shim leaves nothing, and the next pod starts.
func TestShimKilledDuringStart(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		h.grantLeaksOf(killDelegate)
		for range 12 {
			delay := time.Duration(rand.IntN(120)) * time.Millisecond
			p := h.pod(stand.PodConfig{Handler: baseline})
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				time.Sleep(delay)
				for _, pid := range p.Shims(ourShim) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}()
			for i := range 3 {
				c, err := p.Create(h.ctx, stand.ContainerConfig{Name: fmt.Sprint("c", i), Command: []string{"workload", "pause"}})
				if err == nil {
					err = c.Start(h.ctx)
				}
				if err != nil {
					break
				}
			}
			<-killed
			h.removeWhateverIsLeft(p)
		}
		h.pod(stand.PodConfig{Handler: baseline}).shell("true").output()
	})
}

// removeWhateverIsLeft removes a pod whose shim died under a call. containerd's CRI keeps a container that was half created
// as running until it is restarted, with any shim, so that is what an operator would do.
func (h *harness) removeWhateverIsLeft(p *pod) {
	h.t.Helper()
	var err error
	for range 3 {
		if err = p.Remove(h.ctx); err == nil {
			return
		}
	}
	h.t.Logf("restarting containerd, to remove a pod: %v", err)
	if err := h.StopContainerd(unix.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	if err := h.StartContainerd(h.ctx); err != nil {
		h.t.Fatal(err)
	}
	p.remove()
}

// A launcher killed before it was armed never runs the workload. (The host does not see those of a guest.)
func TestLauncherKilled(t *testing.T) {
	only(t, stand.Runc)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, pid := range stand.Processes("/.metsuke", "/guest run") {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}()
		refused := 0
		for i := 0; i < 10 || refused == 0; i++ { // without one that was killed in time the test proves nothing
			c := p.create(stand.ContainerConfig{Name: fmt.Sprint("c", i), Command: []string{"sh", "-c", "echo ran; sleep 0.1"}})
			err := c.Start(h.ctx)
			if err == nil {
				c.exited()
				continue
			}
			refused++
			if out := c.written(); out != "" {
				t.Errorf("Start failed with %v, and the workload wrote %q", err, out)
			}
		}
	})
}

// A stream that cannot be written: audited calls wait, then the profile's onLoss; another container goes on.
func TestDiskFull(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		dir := h.AuditDir(failing)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		// So large that the containers do not fill it themselves, as long as it takes to start them both.
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m,mode=0700"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		ballast := filepath.Join(dir, "ballast")
		other := h.pod(stand.PodConfig{Handler: baseline}).idle()
		strict := h.pod(stand.PodConfig{Handler: failing})
		lenient := h.pod(stand.PodConfig{Handler: failing, Annotations: map[string]string{"metsuke.dev/profile": "lenient"}})
		loop := []string{"sh", "-c", "while :; do echo x > /tmp/f; echo turn; sleep 0.01; done"}
		killed := strict.run(stand.ContainerConfig{Command: loop})
		spared := lenient.run(stand.ContainerConfig{Command: loop})
		if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the file system: %v", err)
		}
		if out := other.exec("echo", "fine"); out != "fine\n" {
			t.Errorf("another container: %q", out)
		}
		killed.exited()
		turns := func() int { return strings.Count(spared.written(), "turn") }
		before := turns()
		h.eventually("the other one goes on, beyond the stall timeout", func() error {
			if n := turns() - before; n < 50 { // more than the last pages of a stream have room for
				return fmt.Errorf("%d turns", n)
			}
			return nil
		})
		if status, err := spared.Status(h.ctx); err != nil || status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("onLoss continue: %v %v", status.GetState(), err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		h.eventually("loss record of the container that went on", func() error {
			for _, e := range lenient.events("main") {
				if n, ok := e.Fields["count"].(float64); e.Kind == "loss" && ok && n > 0 {
					return nil
				}
			}
			return errors.New("there is none")
		})
		strict.remove()
		lenient.remove()
	})
}

// Gigabytes through an exec: the bytes are the delegate's business, not ours.
func TestExecStream(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		c := h.pod(stand.PodConfig{Handler: baseline}).idle()
		out := c.exec("sh", "-c", "head -c 8388608 /dev/zero | tr '\\0' x")
		if len(out) != 8<<20 || strings.Trim(out, "x") != "" {
			t.Errorf("%d bytes", len(out))
		}
	})
}
