// SPDX-License-Identifier: Apache-2.0

package notify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/seccomp/notify"
)

// The tests of this package have a listener of this kernel, so Probe has to find one; and it leaves nothing behind.
func TestProbe(t *testing.T) {
	before := openFiles(t)
	for range 3 {
		if _, err := notify.Probe(); err != nil {
			t.Fatal(err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
	for deadline := time.Now().Add(time.Minute); filteredThreads(t) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are under a filter still", filteredThreads(t))
		}
	}
}

func filteredThreads(t *testing.T) (n int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status") // the first thread's
	if err != nil {
		t.Fatal(err)
	}
	ours := filters(string(status))
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		// One that cannot be read has ended.
		if status, err := os.ReadFile(task); err == nil && filters(string(status)) != ours {
			n++
		}
	}
	return n
}

// filters is the line of a status file that says how many filters there are.
func filters(status string) string {
	_, rest, _ := strings.Cut(status, "\nSeccomp_filters:")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
