// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/stream"
)

// unreadable runs what may open no further file.
func unreadable(t *testing.T, run func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	run()
}

// What cannot be read now is left, and told by an export, and it is tried again although no stream changes.
func TestUnreadNow(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 10)
	streams := newCatalogue(n.root)
	if err := streams.look(); err != nil {
		t.Fatal(err)
	}
	f := &far{}
	o := n.options()
	w, err := newWorker(&o, to("x", f), streams, make(chan struct{}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	unreadable(t, func() { err = w.run(ctx, true) })
	if !errors.Is(err, ErrLeft) || !errors.Is(err, unix.EMFILE) || len(f.got) != 0 {
		t.Errorf("%v, and %d came", err, len(f.got))
	}
	if w.later() == nil {
		t.Error("it is not tried again")
	}
	if err := w.run(ctx, true); err != nil || !n.same(f, "a") || len(gaps(t, f)) != 0 {
		t.Errorf("%v, and %d came", err, len(f.got))
	}
}

// A pod's directory that may not be listed is not one without streams.
func TestUnlisted(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 10)
	for path, mode := range map[string]os.FileMode{
		filepath.Dir(filepath.Dir(n.root)): 0o755, filepath.Dir(n.root): 0o755, n.root: 0o755, filepath.Dir(n.dir("a")): 0,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = os.Chmod(filepath.Dir(n.dir("a")), 0o700) }() // so that it can be removed
	streams := newCatalogue(n.root)
	look := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is somebody else's now, ends with the goroutine
		var err error
		if os.Geteuid() == 0 {
			err = unix.Setfsuid(65534)
		}
		look <- errors.Join(err, streams.look())
	}()
	if err := <-look; err != nil {
		t.Fatal(err)
	}
	if err := streams.unlisted(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}
