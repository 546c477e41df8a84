// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"

	"metsuke.dev/metsuke/integration/stand"
)

// synced is the profile of handler opens whose records are on the disk before their calls go on.
const synced = "opens-synced"

// durabilities measures openat under a profile that audits every one, at each level of durability: what the call waits for is a write(2), or
// the machine's disk.
func (b *bench) durabilities() (err error) {
	release, err := b.streamsOnDisk()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.RemoveAllPods(b.ctx), release()) }()
	alone, err := b.idle(b.Delegate.Name, "")
	if err != nil {
		return err
	}
	batched, err := b.idle(b.opens, ordered)
	if err != nil {
		return err
	}
	waits, err := b.idle(b.opens, synced)
	if err != nil {
		return err
	}
	open := []string{"probe", "open", opened, strconv.Itoa(2000)} // some of them wait for a disk that turns
	sides := []struct {
		name string
		c    *stand.Container
		took samples // microseconds an openat
	}{{"alone", alone, nil}, {"batched", batched, nil}, {"synced", waits, nil}}
	for range max(3, b.rounds/3) {
		for i := range sides {
			numbers, err := b.probe(sides[i].c, open...)
			if err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			for _, nanoseconds := range numbers[1:] {
				sides[i].took = append(sides[i].took, nanoseconds/1000)
			}
		}
		tick()
	}
	bare, written, kept := sides[0].took, sides[1].took, sides[2].took
	b.table.compare("audited openat, durability batched, against the bare call", "µs", bare, written, 0)
	b.table.compare("audited openat, durability synced, against the bare call", "µs", bare, kept, 0)
	b.table.compare("audited openat, durability synced, against batched", "µs", written, kept, 0)
	return nil
}
