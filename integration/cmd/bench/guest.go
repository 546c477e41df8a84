// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// The profiles of handler opens.
const (
	ordered  = "opens-ordered"
	buffered = "opens-buffered"
)

// opened is a file that the guest's kernel has by itself, so that no shared file system is measured.
const opened = "/dev/null"

// turns are how often a loop opens the file: a few seconds' worth.
func (b *bench) turns() int {
	if b.Delegate == stand.Kata {
		return 2000
	}
	return 20000
}

// deliveries measures openat under a resident that tells the host of every one, against the bare call and strace -f: when the
// call waits for its record, and when it does not.
func (b *bench) deliveries() error {
	alone, err := b.idle(b.Delegate.Name, "")
	if err != nil {
		return err
	}
	waits, err := b.idle(b.opens, ordered)
	if err != nil {
		return err
	}
	goesOn, err := b.idle(b.opens, buffered)
	if err != nil {
		return err
	}
	open := []string{"probe", "open", opened, strconv.Itoa(b.turns())}
	sides := []struct {
		c       *stand.Container
		command []string
		took    samples // microseconds an openat
	}{
		{alone, open, nil}, {alone, append([]string{"strace", "-f", "-o", "/dev/null"}, open...), nil}, {waits, open, nil}, {goesOn, open, nil},
	}
	for range max(3, b.rounds/3) {
		for i := range sides {
			numbers, err := b.probe(sides[i].c, sides[i].command...)
			if err != nil {
				return err
			}
			for _, nanoseconds := range numbers[1:] {
				sides[i].took = append(sides[i].took, nanoseconds/1000)
			}
		}
		tick()
	}
	bare, strace := sides[0].took, sides[1].took
	b.table.compare("audited openat, ordered, against the bare call", "µs", bare, sides[2].took, 0)
	b.table.compare("audited openat, buffered, against the bare call", "µs", bare, sides[3].took, 0)
	b.table.compare("audited openat, ordered, against strace -f", "µs", strace, sides[2].took, 0)
	b.table.compare("audited openat, buffered, against strace -f", "µs", strace, sides[3].took, 0)
	return nil
}

// A crowd is how many containers make audited calls together.
type crowd struct {
	what             string
	pods, containers int // containers of each pod
}

// rates measures how many audited calls a second containers make, and counts their records.
func (b *bench) rates() error {
	for _, profile := range []string{ordered, buffered} {
		for _, c := range []crowd{{"one container", 1, 1}, {"10 containers of one pod", 1, 10}, {"10 pods", 10, 1}} {
			if err := b.rate(profile, c); err != nil {
				return err
			}
			if err := b.RemoveAllPods(b.ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// rate adds the rates of the containers' own loops, which begin as execs do: not quite together.
func (b *bench) rate(profile string, crowd crowd) error {
	containers, err := b.crowded(profile, crowd)
	if err != nil {
		return err
	}
	calls := b.turns() // each
	if len(containers) > 1 {
		calls /= 10
	}
	if profile == buffered {
		calls *= 5 // more than can be on the way
	}
	var rates samples
	for range 3 {
		own, problems := make(samples, len(containers)), make([]error, len(containers))
		var all sync.WaitGroup
		for i, c := range containers {
			all.Go(func() {
				numbers, err := b.probe(c, "probe", "open", opened, strconv.Itoa(calls))
				if problems[i] = err; err == nil {
					own[i] = float64(calls) / (numbers[0] / 1e9)
				}
			})
		}
		all.Wait()
		if err := errors.Join(problems...); err != nil {
			return err
		}
		rates = append(rates, own.sum())
		tick()
	}
	lost := 0
	for _, c := range containers {
		n, err := b.missing(c, calls*len(rates))
		if err != nil {
			return err
		}
		lost += n
	}
	b.table.add(row{
		what: fmt.Sprintf("audited openat + close a second, %s, %s", strings.TrimPrefix(profile, "opens-"), crowd.what), n: fmt.Sprint(len(rates)),
		with50: number(rates.p50()/1000, "k/s"), aim: "none lost", ratio: fmt.Sprintf("%d lost", lost), result: verdict(lost == 0),
	})
	return nil
}

// crowded runs the containers.
func (b *bench) crowded(profile string, crowd crowd) ([]*stand.Container, error) {
	var containers []*stand.Container
	for range crowd.pods {
		first, err := b.idle(b.opens, profile)
		if err != nil {
			return nil, err
		}
		containers = append(containers, first)
		for i := range crowd.containers - 1 {
			c, err := first.Pod.Run(b.ctx, stand.ContainerConfig{Name: fmt.Sprint("next-", i), Image: imageBench})
			if err != nil {
				return nil, err
			}
			containers = append(containers, c)
		}
	}
	return containers, nil
}

// missing counts how many of a container's calls are not in its stream. What goes on before its record is written may come a
// while later.
func (b *bench) missing(c *stand.Container, calls int) (int, error) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Second) {
		events, err := c.Pod.Events(b.opens, c.Config.GetMetadata().GetName())
		if err != nil {
			return 0, err
		}
		missing := calls
		for _, e := range events {
			if e.Syscall == "openat" && strings.Contains(e.Raw, `"`+opened+`"`) {
				missing--
			}
		}
		if missing < 0 {
			return 0, fmt.Errorf("container %s has records of %d calls that it did not make", c.Config.GetMetadata().GetName(), -missing)
		}
		if missing == 0 || time.Now().After(end) {
			return missing, nil
		}
	}
}

// resident measures the memory of the resident inside, after it has worked. It shows itself only to a container that may
// trace what it likes.
func (b *bench) resident() error {
	pod, err := b.pod(b.ctx, stand.PodConfig{Handler: b.opens, Modify: func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.Privileged = true
	}})
	if err != nil {
		return err
	}
	c, err := pod.Run(b.ctx, stand.ContainerConfig{Image: imageBench, Modify: func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.Privileged = true
	}})
	if err != nil {
		return err
	}
	if _, err := b.probe(c, "probe", "open", opened, strconv.Itoa(b.turns())); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // it gives memory back in its first seconds
	// The brackets keep the shell from finding itself.
	result, err := c.Exec(b.ctx, "sh", "-c", `for p in /proc/[0-9]*; do grep -q 'gues[t].audit' $p/cmdline && cat $p/smaps_rollup; done`)
	if err != nil {
		return err
	}
	size, err := proportionalSetSize(result.Stdout)
	if err != nil {
		return fmt.Errorf("%w, %s", err, result.Stderr)
	}
	b.table.add(row{
		what: "memory of the resident in the container (PSS)", n: "1", with50: number(size, "MB"), aim: "≤ 8 MB", result: verdict(size <= 8),
	})
	return nil
}
