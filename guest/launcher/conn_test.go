// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The wait for a supervisor has an end.
func TestConnectGivesUp(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	const limit = 30 * time.Millisecond
	began := time.Now()
	if err := connect(fd, filepath.Join(t.TempDir(), "sock"), int64(limit)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("connect: %v, want %v", err, syscall.ENOENT)
	}
	if took := time.Since(began); took < limit {
		t.Errorf("gave up after %v, want %v", took, limit)
	}
}
