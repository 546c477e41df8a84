// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// load is what containers did that made audited calls together, each as fast as it could.
type load struct {
	calls   map[string]uint64 // that each made, by its ContainerID
	windows []uint64          // calls of all that ended in each
	width   time.Duration     // of a window
	took    histogram         // of the calls that ended in a window
}

// lowest is how many calls a second there were in the window that had the fewest.
func (l *load) lowest() float64 { return float64(slices.Min(l.windows)) / l.width.Seconds() }

// seconds is how long all windows are.
func (l *load) seconds() float64 { return l.width.Seconds() * float64(len(l.windows)) }

// newLoad makes a load of so long, in windows of at most ten seconds.
func newLoad(duration time.Duration) *load {
	width := min(duration, 10*time.Second)
	return &load{calls: map[string]uint64{}, windows: make([]uint64, duration/width), width: width, took: histogram{}}
}

// runLoad runs the containers, all beginning at the same moment, and waits for their end. over is called when the last window has ended.
func (b *bench) runLoad(l *load, crowd crowd, over func()) error {
	dir, err := os.MkdirTemp(stand.Dir, "load-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	command := []string{"probe", "load", opened, strconv.Itoa(len(l.windows)), strconv.FormatInt(l.width.Milliseconds(), 10), "/load/go"}
	var containers []*stand.Container
	for range crowd.pods {
		pod, err := b.pod(b.ctx, stand.PodConfig{Handler: b.opens, HostNetwork: true})
		if err != nil {
			return err
		}
		for i := range crowd.containers {
			c, err := pod.Run(b.ctx, stand.ContainerConfig{
				Name: fmt.Sprint("load-", i), Image: imageBench, Command: command,
				Modify: func(c *runtimeapi.ContainerConfig) {
					c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/load", Readonly: true}}
				},
			})
			if err != nil {
				return err
			}
			containers = append(containers, c)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		return err
	}
	time.Sleep(time.Duration(l.seconds() * float64(time.Second)))
	over()
	for _, c := range containers {
		if err := b.collect(l, c); err != nil {
			return err
		}
	}
	return nil
}

// collect waits for a container's end, and adds what it printed.
func (b *bench) collect(l *load, c *stand.Container) error {
	status, err := c.Wait(b.ctx)
	if err != nil {
		return err
	}
	text, err := c.Output()
	if err != nil {
		return err
	}
	if status.GetExitCode() != 0 {
		return fmt.Errorf("container %s: status %d: %s", c.Config.GetMetadata().GetName(), status.GetExitCode(), text)
	}
	numbers, err := parseNumbers(text)
	if err != nil || len(numbers) <= len(l.windows) {
		return fmt.Errorf("the probe printed %d numbers: %w", len(numbers), err)
	}
	l.calls[c.ID] = uint64(numbers[0])
	for i := range l.windows {
		l.windows[i] += uint64(numbers[1+i])
	}
	for bucket := range slices.Chunk(numbers[1+len(l.windows):], 2) {
		l.took[bucket[0]] += uint64(bucket[1])
	}
	return nil
}

// histogram counts calls by what they took: nanoseconds, to within a 32nd.
type histogram map[float64]uint64

// quantile is the smallest value that the part q of all does not exceed, in microseconds.
func (h histogram) quantile(q float64) float64 {
	var all, seen uint64
	for _, n := range h {
		all += n
	}
	for _, took := range slices.Sorted(maps.Keys(h)) {
		if seen += h[took]; float64(seen) >= q*float64(all) {
			return took / 1000
		}
	}
	return math.NaN()
}

func (h histogram) p50() float64 { return h.quantile(0.5) }
func (h histogram) p99() float64 { return h.quantile(0.99) }
