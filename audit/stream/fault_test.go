// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
)

// TestMain lets the tests run this program again as a child that plays a part.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		if unix.Access("/dev/shm", unix.W_OK) == nil { // streams are synced when they are closed, hundreds of them here
			os.Setenv("TMPDIR", "/dev/shm")
		}
		os.Exit(m.Run())
	case "full-disk":
		childFullDisk(os.Args[1], Options{SegmentBytes: 10_000})
	case "full-disk-signed":
		key, err := signature.New()
		if err != nil {
			os.Exit(1)
		}
		childFullDisk(os.Args[1], Options{SegmentBytes: 10_000, Key: key})
	case "writer":
		childWriter(os.Args[1], Options{SegmentBytes: 8000})
	case "signed":
		key, err := signature.Load(os.Args[2])
		if err != nil {
			os.Exit(1)
		}
		childWriter(os.Args[1], Options{SegmentBytes: 8000, Key: key})
	}
}

const childEnv = "METSUKE_STREAM_TEST_CHILD"

// TestInjectedFaults: whatever a write does, the stream is as before and takes the event afterwards.
func TestInjectedFaults(t *testing.T) {
	for _, tt := range []struct {
		name     string
		short    int // bytes that are written before the error
		errno    error
		truncate error // of the first attempts to undo it
		full     bool
	}{
		{"ENOSPC", 0, unix.ENOSPC, nil, true},
		{"short ENOSPC", 100, unix.ENOSPC, nil, true},
		{"EDQUOT", 1, unix.EDQUOT, nil, true},
		{"EIO", 300, unix.EIO, nil, false},
		{"EIO, not undone", 300, unix.EIO, unix.EIO, false},
		{"all but the newline", -1, unix.EIO, unix.EROFS, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			dir := Dir(root, testID)
			w := open(t, root, Options{})
			appendAll(t, w, 2)
			faults := 3
			w.write = func(f *os.File, b []byte) (int, error) {
				if faults--; faults < 0 {
					return f.Write(b)
				}
				short := tt.short
				if short < 0 {
					short = len(b) + short
				}
				n, err := f.Write(b[:short])
				return n, errors.Join(err, tt.errno)
			}
			cuts := 3
			w.truncate = func(f *os.File, size int64) error {
				if cuts--; cuts >= 0 && tt.truncate != nil {
					return tt.truncate
				}
				return f.Truncate(size)
			}
			if err := w.Fold(5); err != nil {
				t.Fatal(err)
			}
			failures := 0
			for {
				err := w.AppendFolded(call(2), 5)
				if err == nil {
					break
				}
				failures++
				var we *WriteError
				if !errors.As(err, &we) || !strings.HasPrefix(we.Path, dir) {
					t.Fatalf("error %v, want a WriteError under %s", err, dir)
				}
				if we.Op == "write" && (!errors.Is(err, tt.errno) || we.Full() != tt.full) {
					t.Errorf("error %v (full: %v), want %v (%v)", err, we.Full(), tt.errno, tt.full)
				}
				if w.Seq() != 2 || w.Folded() != 5 {
					t.Errorf("seq %d, folded %d after a failure; want 2, 5", w.Seq(), w.Folded())
				}
			}
			if failures < 3 || w.Seq() != 3 || w.Folded() != 0 {
				t.Errorf("%d failures, seq %d, folded %d; want at least 3, 3, 0", failures, w.Seq(), w.Folded())
			}
			check(t, dir, 3)
		})
	}
}

// TestCrashInsideFault: the process dies with a torn record that it could not take back.
func TestCrashInsideFault(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{})
	appendAll(t, w, 2)
	w.write = func(f *os.File, b []byte) (int, error) { n, _ := f.Write(b[:77]); return n, unix.EIO }
	w.truncate = func(*os.File, int64) error { return unix.EIO }
	if err := errors.Join(w.Fold(4), w.AppendFolded(call(2), 4)); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	copied := copyStream(t, Dir(root, testID))
	next := open(t, copied, Options{})
	if want := (Recovered{Bytes: 77, Folded: 4}); next.Recovered() != want {
		t.Errorf("recovered %+v, want %+v", next.Recovered(), want)
	}
	appendAll(t, next, 1)
	check(t, Dir(copied, testID), 3)
	w.truncate, w.write = (*os.File).Truncate, (*os.File).Write
}

// TestFoldedOnce: at each point of a crash around AppendFolded, what was folded is counted once.
func TestFoldedOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		written bool // whether the record got into the file
		settled bool // whether the counters did
		want    uint64
	}{
		{"before the record", false, false, 10},
		{"after the record", true, false, 4},
		{"after both", true, true, 4},
	} {
		root := t.TempDir()
		w := open(t, root, Options{})
		appendAll(t, w, 1)
		if err := w.Fold(10); err != nil {
			t.Fatal(err)
		}
		var crashed string
		w.write = func(f *os.File, b []byte) (int, error) {
			if !tt.written {
				crashed = copyStream(t, Dir(root, testID))
			}
			n, err := f.Write(b)
			if tt.written && !tt.settled {
				crashed = copyStream(t, Dir(root, testID))
			}
			return n, err
		}
		if err := w.AppendFolded(call(1), 6); err != nil {
			t.Fatal(err)
		}
		if tt.settled {
			crashed = copyStream(t, Dir(root, testID))
		}
		next := open(t, crashed, Options{})
		if got := next.Recovered().Folded; got != tt.want {
			t.Errorf("%s: %d are outstanding, want %d", tt.name, got, tt.want)
		}
		// The clean-up's own record settles them.
		loss := &audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossShim, Count: tt.want}}
		if err := next.AppendFolded(loss, tt.want); err != nil || next.Folded() != 0 {
			t.Errorf("%s: %v, %d outstanding after the loss record", tt.name, err, next.Folded())
		}
	}
}

// copyStream copies the files of a stream, as a crash would leave them, to the same place under a new root.
func copyStream(t *testing.T, dir string) (root string) {
	t.Helper()
	root = t.TempDir()
	to := Dir(root, testID)
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestFullDisk fills a real file system of 64 KiB, makes room, and goes on.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts a small file system in a mount namespace of its own")
	}
	for _, child := range []string{"full-disk", "full-disk-signed"} {
		cmd := exec.Command(os.Args[0], t.TempDir())
		cmd.Env = append(os.Environ(), childEnv+"="+child)
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", child, err, out)
		}
	}
}

func childFullDisk(root string, o Options) {
	fail := func(args ...any) { _, _ = io.WriteString(os.Stderr, errorText(args...)); os.Exit(1) }
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k")); err != nil {
		fail("mount", err)
	}
	ballast := filepath.Join(root, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 16<<10), 0o600); err != nil {
		fail(err)
	}
	dir := Dir(root, testID)
	w, err := OpenWriter(dir, testID, o)
	if err != nil {
		fail(err)
	}
	n := uint64(0)
	for ; err == nil; n++ {
		if n > 1000 {
			fail("the disk does not fill")
		}
		err = w.Append(call(int(n)))
	}
	n--
	var we *WriteError
	if !errors.As(err, &we) || !we.Full() || w.Seq() != n {
		fail("error", err, "seq", w.Seq(), "want", n)
	}
	if got, err := checkChain(dir); err != nil || got != n {
		fail("full: records", got, err)
	}
	if err := w.Fold(3); err != nil { // its block is there
		fail("fold on a full disk:", err)
	}
	if err := w.AppendFolded(call(0), 3); err == nil || w.Folded() != 3 {
		fail("append on a full disk:", err, "folded", w.Folded())
	}
	if _, err := OpenWriter(Dir(root, audit.Identity{Container: "other"}), testID, Options{}); err == nil {
		fail("a stream was opened on a full disk")
	}
	if err := os.Remove(ballast); err != nil {
		fail(err)
	}
	if err := w.AppendFolded(call(0), 3); err != nil || w.Folded() != 0 {
		fail("after there is room:", err, "folded", w.Folded())
	}
	if got, err := checkChain(dir); err != nil || got != n+1 {
		fail("after there is room: records", got, err)
	}
	if err := w.Close(); err != nil {
		fail(err)
	}
}

// The last of a file system is for streams that are small: who has filled a segment stalls first.
func TestReserve(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		free, total uint64
		stalls      bool
	}{
		{2 * gib, 100 * gib, false},
		{gib, 100 * gib, false},
		{gib - 1, 100 * gib, true},
		{gib / 2, 4 * gib, false}, // a tenth of a small one
		{gib / 4, 4 * gib, true},
	} {
		w, err := OpenWriter(filepath.Join(t.TempDir(), "pod", "c"), audit.Identity{}, Options{SegmentBytes: 1000})
		if err != nil {
			t.Fatal(err)
		}
		free := tt.free
		w.space = func() (uint64, uint64, error) { return free, tt.total, nil }
		event := &audit.Event{Kind: audit.KindOOM, OOM: &audit.OOM{}}
		var failed error
		for range 10 {
			if failed = w.Append(event); failed != nil {
				break
			}
		}
		var we *WriteError
		if stalled := errors.As(failed, &we) && we.Full(); stalled != tt.stalls {
			t.Errorf("%d of %d free: %v", tt.free, tt.total, failed)
		}
		if w.Seq() == 0 {
			t.Error("the first segment stalls")
		}
		free = tt.total
		if err := w.Append(event); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
