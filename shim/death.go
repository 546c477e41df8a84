// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/status"
)

// recordDeath writes the loss of a container whose shim died into its stream: nobody watched it since, and what was
// folded and not written yet has no record. The calls that it made meanwhile and that would have been notified got
// ENOSYS.
func recordDeath(_ context.Context, d *bootstrap.Deletion) error {
	if !d.Lost || d.Record == nil || len(d.Record.Owner) == 0 {
		return nil
	}
	var o status.Owner
	if err := json.Unmarshal(d.Record.Owner, &o); err != nil {
		return fmt.Errorf("loss of container %s is not recorded: %w", d.ID, err)
	}
	if o.Stream == "" {
		return nil
	}
	// Without its key the loss is recorded all the same: that it is not signed is what whoever verifies finds then.
	var key *signature.Key
	var unsigned error
	if o.Key != "" {
		if key, unsigned = signature.Load(o.Key); unsigned != nil {
			unsigned = fmt.Errorf("loss of container %s is not signed: %w", d.ID, unsigned)
		}
	}
	w, err := stream.OpenWriter(o.Stream, o.Identity, stream.Options{Key: key})
	if err != nil {
		return fmt.Errorf("loss of container %s is not recorded: %w", d.ID, err)
	}
	return errors.Join(unsigned, w.Report(audit.LossShim, "the shim ended while the container ran"), w.Close())
}
