// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/shim/status"
)

// minPrefix is the shortest beginning of an id that names a pod, in characters.
const minPrefix = 4

// Options of Inspect.
type Options struct {
	Since   time.Time // count the records from then on, in the stream; zero: what the shim has counted
	Denials int       // the newest so many; what is kept is bounded by tally.MaxRecent
}

// NotFoundError says that no pod has the name.
type NotFoundError struct {
	Name, StateDir string
}

// Error implements error.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no pod %q is under Metsuke on this node, by %s", e.Name, e.StateDir)
}

// AmbiguousError says that several pods have the name.
type AmbiguousError struct {
	Name string
	Pods []Pod // as far as they are known from disk
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q names %d pods", e.Name, len(e.Pods))
}

// Inspect returns all that is known of one pod. name is "namespace/pod", a pod's name, or the beginning of the id of its
// sandbox or of one of its containers. Errors are *NotFoundError, *AmbiguousError, and those of List. It reads streams only
// for Options.Since and for containers whose shim does not answer; that ends with ctx.
func (n *Node) Inspect(ctx context.Context, name string, o Options) (*Pod, error) {
	found, err := n.find(ctx)
	if err != nil {
		return nil, err
	}
	switch found = named(found, name); len(found) {
	case 0:
		return nil, &NotFoundError{name, n.StateDir}
	case 1:
	default:
		return nil, &AmbiguousError{name, published(found)}
	}
	p := found[0]
	limited(ctx, n.patience(), p.ask)
	if !p.Silent() && !p.deaf {
		limited(ctx, n.patience(), p.askUsage)
	}
	now := present{root: n.Root}
	for i := range p.Containers {
		c := &p.Containers[i]
		c.Drift = now.drift(p.Shim.Config, p.owners[c.ID])
		if c.Stream == nil {
			continue
		}
		if err := p.count(ctx, c, o.Since); err != nil {
			return nil, err
		}
		p.readRecords(c, o.Denials)
	}
	return &p.Pod, nil
}

func limited(ctx context.Context, patience time.Duration, work func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	work(ctx)
}

// named returns the pods that a name may mean: by name if there are such, else by id.
func named(all []*pod, name string) []*pod {
	by := func(is func(*pod) bool) []*pod {
		return slices.DeleteFunc(slices.Clone(all), func(p *pod) bool { return !is(p) })
	}
	if found := by(func(p *pod) bool { return p.named(name) }); len(found) > 0 || len(name) < minPrefix {
		return found
	}
	return by(func(p *pod) bool {
		return strings.HasPrefix(p.SandboxID, name) ||
			slices.ContainsFunc(p.Containers, func(c Container) bool { return strings.HasPrefix(c.ID, name) })
	})
}

func (p *pod) askUsage(ctx context.Context) {
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.State != "running" && c.State != "paused" && c.State != "created" {
			continue
		}
		var err error
		if c.Usage, err = p.client.Usage(ctx, c.ID); err != nil && !errors.Is(err, status.ErrUnknown) {
			p.problem(err)
		}
	}
}

// count has the stream's own records counted where the shim's counters are not there, or not what was asked for.
func (p *pod) count(ctx context.Context, c *Container, since time.Time) error {
	s := c.Stream
	var err error
	if s.Segments, s.Bytes, err = stream.Size(p.dir(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problem(fmt.Errorf("stream of container %s: %w", c.Name, err))
	}
	if s.Counts != nil && since.IsZero() {
		return nil
	}
	counts, err := scan(ctx, p.dir(c), since)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problem(fmt.Errorf("stream of container %s: %w", c.Name, err))
	}
	if counts == nil {
		return nil
	}
	if known := s.Counts; known != nil { // which may be older than since
		counts.Places.Start, counts.Places.Exit, counts.Places.Sessions = known.Places.Start, known.Places.Exit, known.Places.Sessions
	}
	s.Counts, s.Counted = counts, Newest
	if !since.IsZero() {
		s.Counted = Since
	}
	return nil
}

// readRecords reads the records that people want to see, each at its place.
func (p *pod) readRecords(c *Container, denials int) {
	if c.Stream.Counts == nil {
		return
	}
	places := &c.Stream.Counts.Places
	c.Receipt = p.read(c, places.Start)
	one := func(to *[]*Record, at stream.Position) {
		if r := p.read(c, &at); r != nil {
			*to = append(*to, r)
		}
	}
	for _, at := range places.Denials[max(0, len(places.Denials)-denials):] {
		one(&c.Denials, at)
	}
	if c.Stream.LastDenial == nil && len(c.Denials) > 0 {
		c.Stream.LastDenial = c.Denials[len(c.Denials)-1]
	}
	for _, l := range c.Stream.Counts.Limits {
		one(&c.Limits, l.Newest)
	}
	for _, l := range c.Stream.Counts.Losses {
		one(&c.Losses, l.Newest)
	}
	if p.Silent() { // what still runs nobody knows
		return
	}
	for _, id := range slices.Sorted(maps.Keys(places.Sessions)) {
		one(&c.Sessions, places.Sessions[id])
	}
}
