// SPDX-License-Identifier: Apache-2.0

package powerloss

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

func newWorkload(t *testing.T, synced bool) (*workload, signature.Ring) {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	d, dir := mount(t)
	reboot(t, "before")
	return &workload{t: t, disk: d, dir: dir, settled: map[uint64]uint64{}, options: stream.Options{
		Key: key, SegmentBytes: 6000, Synced: synced, FlushInterval: time.Hour, // what is flushed, the test has flushed
		Problem: func(err error) { t.Error(err) },
	}}, signature.Ring{key.Public}
}

// TestPowerFailsAtEachStep: two instances of a container, one call after the other, and the power fails after each operation of the disk.
func TestPowerFailsAtEachStep(t *testing.T) {
	for _, synced := range []bool{true, false} {
		t.Run(fmt.Sprintf("synced=%v", synced), func(t *testing.T) {
			w, keys := newWorkload(t, synced)
			list := w.failEach(1, func(*rand.Rand) bool { return true })
			for range 2 {
				s := w.open()
				for n := range 20 {
					w.append(s, 0)
					if n%4 == 0 {
						w.fold(s, 3)
					}
					if n%4 == 3 {
						w.append(s, 2)
					}
					if n%8 == 7 {
						w.flush(s)
					}
				}
				w.close(s)
			}
			w.disk.watch = nil
			if len(*list) < 400 {
				t.Errorf("the power failed %d times", len(*list))
			}
			reboot(t, "after")
			w.checkAll(*list, keys)
		})
	}
}

// TestPowerFailsUnderLoad: calls of several processes at the same time, and the power fails at any moment.
func TestPowerFailsUnderLoad(t *testing.T) {
	for _, synced := range []bool{true, false} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("synced=%v,seed=%d", synced, seed), func(t *testing.T) {
				w, keys := newWorkload(t, synced)
				list := w.failEach(seed, func(r *rand.Rand) bool { return r.IntN(8) == 0 })
				for range 2 {
					s := w.open()
					var all sync.WaitGroup
					for n := range 4 {
						all.Go(func() {
							r := rand.New(rand.NewPCG(seed, uint64(n)))
							for range 15 {
								switch r.IntN(6) {
								case 0:
									w.fold(s, 2)
								case 1:
									w.append(s, 1)
								case 2:
									w.flush(s)
								default:
									w.append(s, 0)
								}
							}
						})
					}
					all.Wait()
					w.close(s)
				}
				w.disk.watch = nil
				reboot(t, "after")
				w.checkAll(*list, keys)
			})
		}
	}
}
