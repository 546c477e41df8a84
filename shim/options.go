// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/delegate"
)

// createOptions returns the runtime options that the delegate gets with a Create: its own, whatever containerd sends.
// Only the owner of the stdio FIFOs is taken over, which containerd's CRI names for a container in a user namespace
// (runc's options, whatever the runtime).
func (s *Service) createOptions(asked *anypb.Any) (*anypb.Any, error) {
	cfg := s.Pod.Settings.Delegate
	if cfg.RuntimeType != delegate.RuncType || !strings.HasSuffix(asked.GetTypeUrl(), "containerd.runc.v1.Options") {
		return s.options, nil
	}
	var from options.Options
	if err := proto.Unmarshal(asked.GetValue(), &from); err != nil {
		return nil, fmt.Errorf("runtime options: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	if from.IoUid == 0 && from.IoGid == 0 {
		return s.options, nil
	}
	own := &options.Options{}
	if cfg.Runc != nil {
		own = proto.CloneOf(cfg.Runc)
	}
	own.IoUid, own.IoGid = from.IoUid, from.IoGid
	cfg.Runc = own
	return cfg.Options()
}
