// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/ttrpc"

	"metsuke.dev/metsuke/audit"
)

// timing is the record of how long a start took that has succeeded.
func (s *Service) timing(c *container) *audit.Event {
	return &audit.Event{Time: time.Now(), Kind: audit.KindTiming, Timing: &audit.Timing{
		Began: c.watch.began, SandboxID: s.Pod.ID, Delegate: s.Config.Delegate.RuntimeType, Placement: string(s.Config.Supervisor.Placement),
		Image: c.image, Traceparent: c.caller, Laps: c.watch.laps[:min(len(c.watch.laps), audit.MaxLaps)],
	}}
}

// traceparent returns the span on whose behalf a request came, where containerd tells (its package otelttrpc puts it into the request's
// metadata); empty if it does not, or if what it says is not valid.
func traceparent(ctx context.Context) string {
	metadata, _ := ttrpc.GetMetadata(ctx)
	values, _ := metadata.Get("traceparent")
	if len(values) != 1 || !validTraceparent(values[0]) {
		return ""
	}
	return values[0]
}

// validTraceparent checks for the form of version 00 (https://www.w3.org/TR/trace-context/#traceparent-header).
func validTraceparent(s string) bool {
	fields := strings.SplitN(s, "-", 5)
	if len(fields) != 4 || fields[0] != "00" {
		return false
	}
	trace, parent, flags := fields[1], fields[2], fields[3]
	return lowerHex(trace, 32) && lowerHex(parent, 16) && lowerHex(flags, 2) && strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

// lowerHex tells whether s is so many hexadecimal digits, none of them a capital.
func lowerHex(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, "0123456789abcdef") == ""
}
