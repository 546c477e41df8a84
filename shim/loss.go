// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/profile"
)

// lost is told by the supervisor that events of a container are missing, or may be. The loss itself is the
// supervisor's to record; what the profile wants done about it is ours.
func (s *Service) lost(c *container, l audit.Loss) {
	logger := log.L.WithField("container", c.id).WithField("reason", l.Reason).WithField("count", l.Count)
	if c.profile.OnLoss == profile.OnLossContinue {
		logger.Error("events are lost; the profile lets the container go on")
		return
	}
	logger.Error("events are lost; killing the container")
	c.mu.Lock()
	c.lost = true
	c.mu.Unlock()
	s.kill(c, "")
}
