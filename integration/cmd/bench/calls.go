// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// calls measures a call that is neither audited nor denied: in a container of the delegate's, there under the very filter
// that Metsuke loads, and under Metsuke. The second is the fair comparison; the first is what one would have without any.
func (b *bench) calls() error {
	with, err := b.idle(b.other, "")
	if err != nil {
		return err
	}
	pid, err := with.PID(b.ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(stand.Dir, "filter")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	filter, err := loadedFilter(pid)
	if err != nil {
		return fmt.Errorf("read the filter of process %d: %w", pid, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filter"), filter, 0o644); err != nil {
		return err
	}
	pod, err := b.pod(b.ctx, stand.PodConfig{})
	if err != nil {
		return err
	}
	alone, err := pod.Run(b.ctx, stand.ContainerConfig{Image: imageBench, Modify: func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/filter", Readonly: true}}
	}})
	if err != nil {
		return err
	}
	const turns, batches = "100000", "5"
	sides := []struct {
		c       *stand.Container
		command []string
		took    samples
	}{
		{alone, []string{"probe", "calls", turns, batches}, nil},
		{alone, []string{"probe", "calls", turns, batches, "/filter/filter"}, nil},
		{with, []string{"probe", "calls", turns, batches}, nil},
	}
	for range b.rounds {
		for i := range sides {
			took, err := b.probe(sides[i].c, sides[i].command...)
			if err != nil {
				return err
			}
			sides[i].took = append(sides[i].took, took...)
		}
		tick()
	}
	b.table.compare("allowed call (getppid), against no filter", "ns", sides[0].took, sides[2].took, 0)
	b.table.compare(fmt.Sprintf("allowed call, against an equal filter (%d instructions)", len(filter)/8), "ns", sides[1].took, sides[2].took, 1.05)
	return nil
}

// audited measures openat under a profile that audits every one, against the bare call, a bare loop in C that answers
// notifications and reads the path, and strace -f.
func (b *bench) audited() error {
	const file, turns = "/etc/probed", 20000
	alone, with, err := b.pair(b.opens)
	if err != nil {
		return err
	}
	open := []string{"probe", "open", file, strconv.Itoa(turns)}
	sides := []struct {
		name    string
		c       *stand.Container
		command []string
		took    samples // microseconds an openat
		pair    samples // microseconds an openat with its close, the mean of a run
	}{
		{"bare", alone, open, nil, nil},
		{"C loop", alone, []string{"probe", "notify", file, strconv.Itoa(turns)}, nil, nil},
		{"strace -f", alone, append([]string{"strace", "-f", "-o", "/dev/null"}, open...), nil, nil},
		{"Metsuke", with, open, nil, nil},
	}
	measure := func() error {
		for i := range sides {
			numbers, err := b.probe(sides[i].c, sides[i].command...)
			if err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			for _, nanoseconds := range numbers[1:] {
				sides[i].took = append(sides[i].took, nanoseconds/1000)
			}
			sides[i].pair = append(sides[i].pair, numbers[0]/1000/turns)
		}
		tick()
		return nil
	}
	for range max(3, b.rounds/3) {
		if err := measure(); err != nil {
			return err
		}
	}
	bare, loop, strace, ours := sides[0], sides[1], sides[2], sides[3]
	b.table.compare("audited openat, against the bare call", "µs", bare.took, ours.took, 0)
	b.table.compare("audited openat, against a bare C loop that reads the path", "µs", loop.took, ours.took, 1.5)
	b.table.compare("audited openat, against strace -f", "µs", strace.took, ours.took, 0)
	// strace stops at every call, whichever it is asked to show, so what a program pays for a watched openat is the pair.
	b.table.compare("openat and close, openat audited, against strace -f", "µs", strace.pair, ours.pair, 1.0/3)

	rates, err := b.oneCore(with, open, turns)
	if err != nil {
		return err
	}
	b.table.add(row{
		what: "audited openat + close a second, workload and supervisor on one core", n: fmt.Sprint(len(rates)),
		with50: number(rates.p50()/1000, "k/s"), aim: "≥ 50 k/s", result: verdict(rates.p50() >= 50_000),
	})
	return nil
}

// oneCore measures the rate with the container's processes and its shims on one CPU.
func (b *bench) oneCore(c *stand.Container, command []string, turns float64) (samples, error) {
	for _, pid := range append(c.Pod.Shims("metsuke"), c.Pod.Shims("runc")...) {
		if err := pin(pid, 0); err != nil {
			return nil, err
		}
	}
	var rates samples
	for range max(3, b.rounds/3) {
		numbers, err := b.probe(c, append([]string{"taskset", "1"}, command...)...)
		if err != nil {
			return nil, err
		}
		rates = append(rates, turns/(numbers[0]/1e9))
		tick()
	}
	return rates, nil
}

// build measures many small files and processes, as a build has them, in containers that run side by side in turns.
func (b *bench) build() error {
	without, with, err := b.pair(b.other)
	if err != nil {
		return err
	}
	var alone, ours samples
	for round := range max(5, b.rounds/2) + 1 {
		for _, side := range []struct {
			c    *stand.Container
			into *samples
		}{{without, &alone}, {with, &ours}} {
			numbers, err := b.probe(side.c, "workload", "build", "/tmp/build", "2000", "200")
			if err != nil {
				return err
			}
			if round > 0 {
				*side.into = append(*side.into, numbers[0]/1e6)
			}
		}
		tick()
	}
	b.table.compare("a build: 2000 small files written, read, renamed; 200 processes", "ms", alone, ours, 1.03)
	return nil
}
