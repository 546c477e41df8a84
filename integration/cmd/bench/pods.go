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
	type parts struct {
		handler                     string
		sandbox, create, start, all samples
	}
	sides := []*parts{{handler: b.Delegate.Name}, {handler: b.other}}
	for round := range b.rounds + 1 {
		for _, side := range sides {
			begin := time.Now()
			pod, err := b.pod(b.ctx, stand.PodConfig{Handler: side.handler})
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
			side.sandbox, side.create = append(side.sandbox, sandbox), append(side.create, create)
			side.start, side.all = append(side.start, start), append(side.all, all)
		}
		tick()
	}
	aim, _ := b.aims()
	without, with := sides[0], sides[1]
	b.table.compare("pod start: RunPodSandbox", "ms", without.sandbox, with.sandbox, 0)
	b.table.compare("pod start: CreateContainer", "ms", without.create, with.create, 0)
	b.table.compare("pod start: StartContainer", "ms", without.start, with.start, 0)
	b.table.compare("pod start: all three", "ms", without.all, with.all, aim)
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
	_, aim := b.aims()
	b.table.compare("exec (ExecSync true)", "ms", alone, ours, aim)
	return nil
}

// pair runs an idle container under the delegate alone, and one under a handler.
func (b *bench) pair(handler string) (without, with *stand.Container, err error) {
	if without, err = b.idle(b.Delegate.Name, ""); err != nil {
		return nil, nil, err
	}
	with, err = b.idle(handler, "")
	return without, with, err
}

// memory measures what Metsuke adds to a pod on the host: the proportional set size of its shims, less that of the delegate's
// alone; and of its machine, where it has one.
func (b *bench) memory() error {
	pods := 10
	if b.Delegate == stand.Kata {
		pods = 4
	}
	var shims, machines [2]float64
	for side, handler := range []string{b.Delegate.Name, b.other} {
		for range pods {
			if _, err := b.idle(handler, ""); err != nil {
				return err
			}
		}
		// Idle shims give memory back in their first seconds.
		time.Sleep(5 * time.Second)
		for _, of := range []struct {
			name string
			into *float64
		}{{"containerd-shim-", &shims[side]}, {"qemu-system-", &machines[side]}, {"virtiofsd", &machines[side]}} {
			size, err := memoryOf(of.name)
			if err != nil {
				return err
			}
			*of.into += size / float64(pods)
		}
		if err := b.RemoveAllPods(b.ctx); err != nil {
			return err
		}
		tick()
	}
	added := func(what string, sides [2]float64) row {
		without, with := sides[0], sides[1]
		return row{
			what: fmt.Sprintf("memory of %s (PSS) a pod, %d idle pods", what, pods), n: fmt.Sprint(pods),
			without50: number(without, "MB"), with50: number(with, "MB"), ratio: fmt.Sprintf("%+.1f MB", with-without),
		}
	}
	r := added("the shims", shims)
	r.aim, r.result = "≤ +12 MB", verdict(shims[1]-shims[0] <= 12)
	b.table.add(r)
	if b.Delegate == stand.Kata {
		b.table.add(added("the VM and its virtiofsd", machines))
	}
	return nil
}

// memoryOf sums up the processes of the stand that have a name in their command line.
func memoryOf(name string) (sum float64, err error) {
	for _, pid := range stand.Processes(name) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		size, err := proportionalSetSize(string(content))
		if err != nil {
			return 0, err
		}
		sum += size
	}
	return sum, nil
}

// proportionalSetSize reads it from a process's smaps_rollup, proc_pid_smaps(5), in megabytes.
func proportionalSetSize(rollup string) (float64, error) {
	for line := range strings.Lines(rollup) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6, nil
		}
	}
	return 0, fmt.Errorf("smaps_rollup has no Pss: %q", rollup)
}

// many starts pods at once, with a container each, and takes the time until each runs and until all do.
func (b *bench) many() error {
	const pods, rounds = 50, 2
	each, whole := map[int]samples{}, map[int]samples{}
	for range rounds {
		for side, handler := range []string{b.Delegate.Name, b.other} {
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
			pod, err := b.pod(ctx, stand.PodConfig{Handler: handler})
			if err == nil {
				_, err = pod.Run(ctx, stand.ContainerConfig{Image: imageBench})
			}
			problems[i], took[i] = err, milliseconds(begin)
		})
	}
	all.Wait()
	return took, milliseconds(begin), errors.Join(problems...)
}
