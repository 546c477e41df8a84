// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"errors"
	"io/fs"
	"math"

	"metsuke.dev/metsuke/audit/checkpoint"
)

// Shipped returns what a Round wants to know of sinks (Round.Confirmed), from their checkpoints in dir; nil if there is no sink that is waited
// for. A sink without a checkpoint has confirmed nothing, and neither has one whose checkpoint cannot be read: the error says so.
func Shipped(dir string, sinks []string) (confirmed func(dir, id string) uint64, err error) {
	if len(sinks) == 0 {
		return nil, nil
	}
	all := make([]*checkpoint.Checkpoint, len(sinks))
	for i, sink := range sinks {
		c, loadErr := checkpoint.Load(dir, sink)
		if loadErr != nil {
			c = &checkpoint.Checkpoint{}
		}
		if !errors.Is(loadErr, fs.ErrNotExist) {
			err = errors.Join(err, loadErr)
		}
		all[i] = c
	}
	return func(dir, id string) uint64 {
		least := uint64(math.MaxUint64)
		for _, c := range all {
			least = min(least, c.Confirmed(dir, id))
		}
		return least
	}, err
}
