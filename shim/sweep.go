// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/status"
)

// A delegate that is killed in the middle of a Create leaves a cgroup that its delete action knows nothing of, and
// containerd may never ask for that container's delete. So each container's cgroup is written down in the pod's
// directory, and whichever delete comes after a death sweeps those that are empty.

// sweepPatience is how long a sweep waits for dying processes.
const sweepPatience = 150 * time.Millisecond

// rememberCgroup writes down where a container's cgroup will be.
func (s *Service) rememberCgroup(b *bundle.Bundle, id string) (path string, err error) {
	if path, err = b.Spec().CgroupsPath(); err != nil {
		return "", err
	}
	record := status.CgroupFile(s.Pod.Dir, id)
	if err := os.MkdirAll(filepath.Dir(record), 0o700); err != nil {
		return "", fmt.Errorf("remember the container's cgroup: %w", err)
	}
	if err := os.WriteFile(record, []byte(path), 0o600); err != nil {
		return "", fmt.Errorf("remember the container's cgroup: %w", err)
	}
	return path, nil
}

// sweep removes the cgroups that a dead pod has left behind, after the delegate's delete action for one of its
// containers. Those that are still in use are for the deletes of their own containers.
func sweep(ctx context.Context, d *bootstrap.Deletion) error {
	if d.ShimAlive || d.Record == nil {
		return nil
	}
	host, err := cgroups.Detect("")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sweepPatience)
	defer cancel()
	var errs []error
	var o status.Owner
	if len(d.Record.Owner) > 0 {
		if err := json.Unmarshal(d.Record.Owner, &o); err != nil {
			errs = append(errs, fmt.Errorf("record of container %s: %w", d.ID, err))
		}
	}
	if o.Cgroup != "" {
		errs = append(errs, host.Remove(ctx, o.Cgroup))
	}
	entries, _ := os.ReadDir(status.CgroupFile(d.Record.Dir, ""))
	for _, e := range entries {
		path, err := os.ReadFile(status.CgroupFile(d.Record.Dir, e.Name()))
		if err != nil || e.Name() == d.ID {
			continue
		}
		// In use is no fault: that container's own delete is still to come.
		_ = host.Remove(ctx, string(path))
	}
	return errors.Join(errs...)
}
