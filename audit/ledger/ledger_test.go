// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/signature"
)

func newKey(t *testing.T) *signature.Key {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func count(t *testing.T, root string, key *signature.Key) (lines uint64) {
	t.Helper()
	file, err := os.Open(filepath.Join(root, Name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := journal.NewReader(file, Context, signature.Ring{key.Public})
	for {
		var e Entry
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return r.Line()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTogether: all shims of a node write to it at the same time.
func TestTogether(t *testing.T) {
	root, key := t.TempDir(), newKey(t)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := Append(root, key, &Entry{Kind: Begin, ID: "x"}, time.Minute); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, root, key); n != writers*each {
		t.Errorf("%d lines, want %d", n, writers*each)
	}
	if err := Sync(root); err != nil {
		t.Error(err)
	}
}

// TestHeld: a process that keeps the ledger, stopped perhaps, holds up nobody for longer than he likes to wait.
func TestHeld(t *testing.T) {
	root, key := t.TempDir(), newKey(t)
	if _, err := Append(root, key, &Entry{}, 0); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(root, Name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(root, key, &Entry{}, 5*time.Millisecond); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("error %v", err)
	}
	if n := count(t, root, key); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestRefused(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/dev/null", path) },
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		root := t.TempDir()
		if err := prepare(filepath.Join(root, Name)); err != nil {
			t.Fatal(err)
		}
		if _, err := Append(root, newKey(t), &Entry{}, 0); err == nil {
			t.Errorf("%s: is taken", name)
		}
	}
}
