// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"metsuke.dev/metsuke/integration/stand"
)

// milliseconds since a time.
func milliseconds(begin time.Time) float64 { return float64(time.Since(begin).Microseconds()) / 1000 }

// starts measures a pod's way to a running container, request by request.
func (b *bench) starts() error {
	type parts struct{ sandbox, create, start, all samples }
	measured := map[string]*parts{delegate: {}, b.other: {}}
	sides := []string{delegate, b.other}
	if b.other == delegate {
		measured["again"] = &parts{}
		sides[1] = "again"
	}
	for round := range b.rounds + 1 {
		for _, side := range sides {
			handler := side
			if side == "again" {
				handler = delegate
			}
			m := measured[side]
			begin := time.Now()
			pod, err := b.RunPod(b.ctx, stand.PodConfig{Handler: handler})
			if err != nil {
				return err
			}
			sandbox := milliseconds(begin)
			created := time.Now()
			c, err := pod.Create(b.ctx, stand.ContainerConfig{Image: imageBench})
			if err != nil {
				return err
			}
			create := milliseconds(created)
			started := time.Now()
			if err := c.Start(b.ctx); err != nil {
				return err
			}
			start, all := milliseconds(started), milliseconds(begin)
			if err := pod.Remove(b.ctx); err != nil {
				return err
			}
			if round == 0 {
				continue // pulls images, warms caches
			}
			m.sandbox, m.create = append(m.sandbox, sandbox), append(m.create, create)
			m.start, m.all = append(m.start, start), append(m.all, all)
		}
		tick()
	}
	without, with := measured[sides[0]], measured[sides[1]]
	b.table.compare("pod start: RunPodSandbox", "ms", without.sandbox, with.sandbox, 0)
	b.table.compare("pod start: CreateContainer", "ms", without.create, with.create, 0)
	b.table.compare("pod start: StartContainer", "ms", without.start, with.start, 0)
	b.table.compare("pod start: all three", "ms", without.all, with.all, 1.25)
	return nil
}

// execs measures ExecSync of a program that does nothing.
func (b *bench) execs() error {
	without, with, err := b.pair(b.other)
	if err != nil {
		return err
	}
	var alone, ours samples
	for round := range b.rounds*5 + 5 {
		for _, side := range []struct {
			c    *stand.Container
			into *samples
		}{{without, &alone}, {with, &ours}} {
			begin := time.Now()
			if _, err := side.c.Exec(b.ctx, "true"); err != nil {
				return err
			}
			if round >= 5 {
				*side.into = append(*side.into, milliseconds(begin))
			}
		}
		if round%10 == 0 {
			tick()
		}
	}
	b.table.compare("exec (ExecSync true)", "ms", alone, ours, 1.25)
	return nil
}

// pair runs an idle container under the delegate alone, and one under a handler.
func (b *bench) pair(handler string) (without, with *stand.Container, err error) {
	if without, err = b.idle(delegate); err != nil {
		return nil, nil, err
	}
	with, err = b.idle(handler)
	return without, with, err
}

// memory measures what Metsuke adds to a pod: the proportional set size of its shims, less that of the delegate's alone.
func (b *bench) memory() error {
	const pods = 10
	sums := map[string]samples{}
	for _, handler := range []string{delegate, b.other} {
		for range pods {
			if _, err := b.idle(handler); err != nil {
				return err
			}
		}
		// Idle shims give memory back in their first seconds.
		time.Sleep(5 * time.Second)
		total := 0.0
		for _, pid := range stand.Processes("containerd-shim-") {
			size, err := proportionalSetSize(pid)
			if err != nil {
				return err
			}
			total += size
		}
		sums[handler] = append(sums[handler], total/pods)
		if err := b.RemoveAllPods(b.ctx); err != nil {
			return err
		}
		tick()
	}
	without, with := sums[delegate].p50(), sums[b.other].p50()
	b.table.add(row{
		what: fmt.Sprintf("memory of the shims (PSS) a pod, %d idle pods", pods), n: fmt.Sprint(pods),
		without50: number(without, "MB"), with50: number(with, "MB"), ratio: fmt.Sprintf("+%.1f MB", with-without),
		aim: "≤ +12 MB", result: verdict(with-without <= 12),
	})
	return nil
}

// proportionalSetSize reads proc_pid_smaps(5), in megabytes.
func proportionalSetSize(pid int) (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6, nil
		}
	}
	return 0, fmt.Errorf("smaps_rollup of %d has no Pss", pid)
}

// many starts pods at once, with a container each, and takes the time until each runs and until all do.
func (b *bench) many() error {
	const pods, rounds = 50, 2
	each, whole := map[int]samples{}, map[int]samples{}
	for range rounds {
		for side, handler := range []string{delegate, b.other} {
			took, wall, err := b.crowd(handler, pods)
			if err != nil {
				return err
			}
			each[side], whole[side] = append(each[side], took...), append(whole[side], wall)
			if err := b.RemoveAllPods(b.ctx); err != nil {
				return err
			}
			tick()
		}
	}
	b.table.compare(fmt.Sprintf("%d pods at once: until one runs", pods), "ms", each[0], each[1], 0)
	b.table.compare(fmt.Sprintf("%d pods at once: until all run", pods), "ms", whole[0], whole[1], 1.25)
	return nil
}

func (b *bench) crowd(handler string, pods int) (took samples, wall float64, err error) {
	took = make(samples, pods)
	problems := make([]error, pods)
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	begin := time.Now()
	for i := range pods {
		all.Go(func() {
			pod, err := b.RunPod(ctx, stand.PodConfig{Handler: handler})
			if err == nil {
				_, err = pod.Run(ctx, stand.ContainerConfig{Image: imageBench})
			}
			problems[i], took[i] = err, milliseconds(begin)
		})
	}
	all.Wait()
	return took, milliseconds(begin), errors.Join(problems...)
}
