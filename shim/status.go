// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"

	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
	"metsuke.dev/metsuke/version"
)

// status answers, from memory alone, what the pod's containers have done so far.
func (s *Service) status(context.Context, *proxy.Call, proxy.Next) ([]byte, error) {
	live := status.Live{
		Version: version.String(), PID: os.Getpid(), Started: s.started, Containers: map[string]status.Container{}, Phases: s.phases.Snapshot(),
	}
	for id, c := range s.supervised() {
		counts := c.tally.Counts()
		live.Containers[id] = status.Container{Seq: c.earlier + counts.Records, Counts: &counts, Stalls: c.super.stalls()}
	}
	return live.Answer()
}

// supervised returns the containers that are there and ours.
func (s *Service) supervised() map[string]*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := map[string]*container{}
	for id, c := range s.containers {
		if c != nil && c != creating {
			ours[id] = c
		}
	}
	return ours
}
