// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
)

// A containerd that does not come up with our handlers gets its files back.
func TestRollBack(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, layout)
			l.service.refuse = refuseOurs
			was := l.snapshot()
			_, err := l.install("v1")
			if err == nil || !strings.Contains(err.Error(), "job failed") || !strings.Contains(err.Error(), "again as it was") {
				t.Fatal(err)
			}
			if l.service.down || l.service.restarts != 2 {
				t.Errorf("containerd is down: %v; %d restarts", l.service.down, l.service.restarts)
			}
			l.same(was)
		})
	}
}

// The same when an installer was killed, at the latest while containerd was down: what to go back to is from before its first step.
func TestRollBackOfAKilledInstaller(t *testing.T) {
	for n, restarted := 0, false; !restarted; n++ {
		l := newLab(t, layouts["2-version-2"])
		was := l.snapshot()
		l.service.refuse = refuseOurs
		l.killed(n, func(node *Node) error {
			l.service.refuse = func(h map[string]cri.Handler) error {
				restarted = true
				panic(death{})
			}
			_, err := node.Install(t.Context(), Source{l.source, "v1"})
			return err
		})
		l.service.refuse = refuseOurs
		if _, err := l.install("v1"); err == nil || !strings.Contains(err.Error(), "again as it was") {
			t.Fatalf("killed before step %d: %v", n, err)
		}
		if l.service.down {
			t.Errorf("killed before step %d: containerd is down", n)
		}
		l.same(was)
	}
}

// An upgrade that fails leaves the version, the handlers and the files of before.
func TestRollBackOfAnUpgrade(t *testing.T) {
	l := newLab(t, layouts["1.7"])
	l.mustInstall("v1")
	was := l.snapshot()
	// Something changed the plain handler, so ours has to change.
	main := strings.Replace(l.read(containerd.DefaultConfig), "cri-base.json", "cri-other.json", 1)
	l.write(containerd.DefaultConfig, main, 0o640)
	if err := l.service.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.service.refuse = func(h map[string]cri.Handler) error {
		if h["metsuke-runc"].BaseRuntimeSpec == "/etc/containerd/cri-other.json" {
			return errors.New("job failed")
		}
		return nil
	}
	l.build("v2")
	if _, err := l.install("v2"); err == nil || !strings.Contains(err.Error(), "again as it was") {
		t.Fatal(err)
	}
	was["/etc/containerd/config.toml"] = strings.Replace(was["/etc/containerd/config.toml"], "\n  base_runtime_spec = \"/etc/containerd/cri-base.json\"\n  [", "\n  base_runtime_spec = \"/etc/containerd/cri-other.json\"\n  [", 1)
	l.same(was)
	if l.service.inForce["metsuke-runc"].BaseRuntimeSpec != "/etc/containerd/cri-base.json" {
		t.Errorf("in force: %+v", l.service.inForce["metsuke-runc"])
	}
}

// Handlers that containerd does not come to have are a failure like any other, after Timeout.
func TestNotInForce(t *testing.T) {
	l := newLab(t, layouts["2-conf.d"])
	was := l.snapshot()
	node := l.at(nil)
	node.Timeout = 300 * time.Millisecond
	node.Service = frozen{l.service}
	_, err := node.Install(t.Context(), Source{l.source, "v1"})
	if err == nil || !strings.Contains(err.Error(), "handler metsuke-runc is not in force") || !strings.Contains(err.Error(), "again as it was") {
		t.Fatal(err)
	}
	l.same(was)
}

// frozen is a containerd that reads nothing anew.
type frozen struct{ *fakeService }

func (f frozen) Restart(context.Context) error { return nil }

func TestNoRestart(t *testing.T) {
	l := newLab(t, layouts["2-version-2"])
	was := l.snapshot()
	for range 2 {
		node := l.at(nil)
		node.NoRestart = true
		if _, err := node.Install(t.Context(), Source{l.source, "v1"}); !errors.Is(err, ErrRestartPending) {
			t.Fatal(err)
		}
	}
	if s, err := l.at(nil).Status(t.Context(), Source{l.source, "v1"}); err != nil || s.Installed || !s.Interrupted {
		t.Errorf("%+v, %v", s, err)
	}
	if l.service.restarts != 0 {
		t.Errorf("%d restarts", l.service.restarts)
	}
	if err := l.service.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := l.at(nil)
	node.NoRestart = true
	if _, err := node.Install(t.Context(), Source{l.source, "v1"}); err != nil {
		t.Fatal(err)
	}
	l.mustInstall("v1")
	node = l.at(nil)
	node.NoRestart = true
	if _, err := node.Uninstall(t.Context(), false); !errors.Is(err, ErrRestartPending) {
		t.Fatal(err)
	}
	if err := l.service.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	node = l.at(nil)
	node.NoRestart = true
	if left, err := node.Uninstall(t.Context(), false); err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	l.same(was)
}

// Where others restart containerd, one that they have restarted with files that are then put back has to be restarted once more.
func TestRollBackWithoutRestart(t *testing.T) {
	l := newLab(t, layouts["2-version-2"])
	node := l.at(nil)
	node.NoRestart = true
	if _, err := node.Install(t.Context(), Source{l.source, "v1"}); !errors.Is(err, ErrRestartPending) {
		t.Fatal(err)
	}
	if err := l.service.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	node = l.at(nil)
	node.NoRestart = true
	ctx, cancel := context.WithCancel(t.Context())
	node.stop = func(step string) {
		if step == "remove what is unfinished" {
			cancel()
		}
	}
	_, err := node.Install(ctx, Source{l.source, "v1"})
	if err == nil || errors.Is(err, ErrRestartPending) || !strings.Contains(err.Error(), "has to be restarted to read them") {
		t.Errorf("%v", err)
	}
	if l.service.restarts != 1 {
		t.Errorf("%d restarts", l.service.restarts)
	}
	l.mustInstall("v1")
}
