// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestShimKilled(t *testing.T) {
	everyDelegate(t, func(t *testing.T, s *stand, p protocol) {
		group := map[string]string{"group": "pod", "io.containerd.runc.v2.group": "pod"}
		s.makeBundle("pod", group)
		s.makeBundle("app", group)
		s.mustStart(p, "pod")
		s.mustStart(p, "app")
		pid, shim := s.delegatePID(), s.shimPID("pod")
		kill(t, shim)
		if !alive(pid) {
			t.Fatal("the delegate died with the shim; the test does not show that delete ends it")
		}
		_, err := s.start(p, "app")
		if err == nil || !strings.Contains(err.Error(), "its Metsuke shim does not") {
			t.Errorf("a container joined a pod without a shim: %v", err)
		} else if strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("a shim that is dead was waited for: %v", err)
		}
		var wg sync.WaitGroup // containerd runs them at the same time
		for _, id := range []string{"app", "pod"} {
			wg.Go(func() { s.mustDelete(id) })
		}
		wg.Wait()
		if alive(pid) {
			t.Error("the delegate outlived delete")
		}
		if want := "pod alive=false lost=true"; !strings.Contains(s.losses(), want) {
			t.Errorf("losses:\n%swant a line %q", s.losses(), want)
		}
	})
}

// TestLockOutlivesShim is a delete while the kernel still takes a killed shim apart: containerd learns of the end by its
// connection, and that may be closed before the pod's lock is.
func TestLockOutlivesShim(t *testing.T) {
	s := newStand(t, fakeBinary, "bootstrap")
	s.makeBundle("pod", nil)
	s.mustStart(newer, "pod")
	shim := s.shimPID("pod")
	pidfd, err := unix.PidfdOpen(shim, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	lock, err := unix.PidfdGetfd(pidfd, fdLock, 0)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, shim)
	time.AfterFunc(100*time.Millisecond, func() { unix.Close(lock) })
	s.mustDelete("pod")
	if want := "pod alive=false lost=true"; !strings.Contains(s.losses(), want) {
		t.Errorf("losses:\n%swant a line %q", s.losses(), want)
	}
}

func TestDelegateKilled(t *testing.T) {
	everyDelegate(t, func(t *testing.T, s *stand, p protocol) {
		s.makeBundle("pod", nil)
		s.mustStart(p, "pod")
		shim := s.shimPID("pod")
		if err := unix.Kill(s.delegatePID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "shim ends", func() bool { return !alive(shim) })
		s.mustDelete("pod")
	})
}
