// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/log"

	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
)

// delete passes on, and then forgets what was deleted. The records of its exit and its end are written before a
// container's stream is closed.
func (s *Service) delete(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	var req taskapi.DeleteRequest
	if err := decode(call.Payload, &req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	c := s.containers[req.ID]
	s.mu.Unlock()
	if c == creating {
		// containerd gave up waiting for Create. There is nothing to delete yet, and delegates say so too.
		return nil, errUnknown(req.ID)
	}
	resp, err := next(ctx, call.Payload)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if req.ExecID == "" {
		delete(s.containers, req.ID)
	}
	s.mu.Unlock()
	if req.ExecID == "" {
		_ = os.Remove(status.CgroupFile(s.Pod.Dir, req.ID)) // the delegate has removed the cgroup
	}
	switch {
	case c == nil:
	case req.ExecID != "":
		c.forget(req.ExecID)
	default:
		var deleted taskapi.DeleteResponse
		if err := decode(resp, &deleted); err == nil {
			c.exit(deleted.ExitStatus, deleted.ExitedAt.AsTime())
			<-c.exited
		}
		c.end()
		c.close()
		// From here on a delete action has nothing lost to report.
		if err := s.Pod.CloseRecord(c.bundle); err != nil {
			log.G(ctx).WithError(err).WithField("container", c.id).Warn("record of a deleted container stays open")
		}
	}
	return resp, nil
}
