// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAwaitWriters(t *testing.T) {
	never := func() bool { return false }
	dir := t.TempDir()
	fifo := filepath.Join(dir, "stdin")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", filepath.Join(dir, "absent"), plain, fifo} {
		if err := (stdin{fifo: path}).awaitWriters(t.Context(), never); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}

	// The delegate reads it; a client writes.
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	expectWait := func(why string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*stdinPoll)
		defer cancel()
		if err := (stdin{fifo: fifo}).awaitWriters(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want that it waits", why, err)
		}
	}
	expectWait("an open writer")
	if _, err := writer.WriteString("input"); err != nil {
		t.Fatal(err)
	}
	expectWait("an open writer and data")
	writer.Close()
	expectWait("data that the delegate has not read")

	done := make(chan error, 1)
	go func() { done <- (stdin{fifo: fifo}).awaitWriters(t.Context(), never) }()
	got := make([]byte, 16)
	n, err := reader.Read(got)
	if err != nil || string(got[:n]) != "input" {
		t.Errorf("the delegate reads %q, %v: something was taken out", got[:n], err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("still waits for a FIFO without writers")
	}
}
