// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Remove removes a container's cgroup, which nobody uses any more, from every hierarchy. path is the OCI cgroupsPath
// (config-linux.md, "Cgroups Path") in the form of the cgroupfs driver; one of systemd's form is left to systemd,
// which removes a scope when it is empty. One that is not there is fine. One that is in use is waited for until ctx
// ends, because its last process may still be dying.
func (h *Host) Remove(ctx context.Context, path string) error {
	if !filepath.IsAbs(path) || path != filepath.Clean(path) || path == "/" || strings.Count(path, ":") == 2 {
		return nil
	}
	var left error
	for {
		left = nil
		for _, m := range h.all {
			dir, err := m.dir(path)
			if err != nil {
				continue // not shown here, so not made from here
			}
			err = syscall.Rmdir(filepath.Join(h.root+"/", dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				left = fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
		if left == nil || !errors.Is(left, syscall.EBUSY) {
			return left
		}
		select {
		case <-ctx.Done():
			return left
		case <-time.After(10 * time.Millisecond):
		}
	}
}
