// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit/stream"
)

// closeAbandoned closes the streams that were open when the node went down, those of pods that will not come back. The first shim of a
// boot does it, beside its work.
func (s *Service) closeAbandoned() {
	closed, err := stream.CloseAllAbandoned(s.Config.Directories.Audit, s.key)
	for _, dir := range closed {
		log.L.WithField("stream", dir).Warn("the node went down while this audit stream was open; it is closed now, with a loss")
	}
	if err != nil {
		log.L.WithError(err).Error("an audit stream that the node had left open is not closed")
	}
}
