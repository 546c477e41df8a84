// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

func batch(lines ...string) (all []sink.Record) {
	for _, line := range lines {
		all = append(all, sink.Record{ID: line, Line: []byte(line)})
	}
	return all
}

func send(t *testing.T, s sink.Sink, lines ...string) {
	t.Helper()
	if err := s.Send(t.Context(), batch(lines...)); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f := New(&config.File{Path: path})
	send(t, f, "a", "b")
	send(t, f, "c")
	holds(t, path, "a\nb\nc\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// Whoever rotates it renames it.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	send(t, f, "d")
	holds(t, path, "d\n")
	holds(t, path+".old", "a\nb\nc\n")
	// A crash leaves a piece.
	if err := errors.Join(f.Close(t.Context()), os.WriteFile(path, []byte("d\ne"), 0o600)); err != nil {
		t.Fatal(err)
	}
	send(t, f, "e")
	holds(t, path, "d\ne\n")
	if err := errors.Join(f.Close(t.Context()), f.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// "metsuke ship check" may run beside a shipper that is in the middle of a line.
func TestCheckLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("a\nhalf of"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := New(&config.File{Path: path})
	if err := errors.Join(f.Check(t.Context()), f.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "a\nhalf of")
}

func TestRotation(t *testing.T) {
	for keep := range 4 {
		path := filepath.Join(t.TempDir(), "out")
		f := New(&config.File{Path: path, MaxSize: 4, Keep: keep})
		for i := range 6 {
			send(t, f, fmt.Sprint("r", i), "x")
		}
		for n := 1; n <= 5; n++ {
			if n <= keep {
				holds(t, fmt.Sprint(path, ".", n), fmt.Sprintf("r%d\nx\n", 6-n))
			} else if _, err := os.Lstat(fmt.Sprint(path, ".", n)); err == nil {
				t.Errorf("%d are kept, %d should", n, keep)
			}
		}
	}
}

func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("elsewhere", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, filepath.Join(dir, "no", "such")} {
		f := New(&config.File{Path: path})
		if f.Send(t.Context(), batch("a")) == nil || f.Check(t.Context()) == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

// TestFullDisk: what could not be written whole is not there once it can.
func TestFullDisk(t *testing.T) {
	f := New(&config.File{Path: "/dev/full"})
	file, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.out.Reset(file)
	f.file = file
	if err := f.append(batch("a")); err == nil {
		t.Error("no error")
	}
}

type failing struct {
	bytes.Buffer
	fails bool
}

func (f *failing) Write(p []byte) (int, error) {
	if f.fails {
		return 0, errors.New("no")
	}
	return f.Buffer.Write(p)
}

func TestStdout(t *testing.T) {
	to := &failing{fails: true}
	s := NewStdout(to)
	if err := s.Send(t.Context(), batch("a")); err == nil {
		t.Error("no error")
	}
	to.fails = false
	send(t, s, "a", "b")
	if to.String() != "a\nb\n" {
		t.Errorf("%q", to.String())
	}
	if err := errors.Join(s.Check(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
