// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/integration/stand"
)

// compress has metsuke audit retain compress the segments.
func (b *bench) compress(l *backlog) error {
	cmd := exec.CommandContext(b.ctx, stand.Metsuke("metsuke"), "audit", "retain", "--config", b.ConfigPath(b.opens), "--dir", l.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("metsuke audit retain: %w: %s", err, out)
	}
	for name := range l.records {
		segments, err := stream.Segments(filepath.Join(l.root, name))
		if err != nil {
			return err
		}
		for _, s := range segments[:len(segments)-1] { // the last one rests for a while first
			if !s.Compressed() {
				return fmt.Errorf("%s is not compressed", s.Path)
			}
		}
	}
	return nil
}
