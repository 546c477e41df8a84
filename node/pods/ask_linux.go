// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/shim/status"
)

// ask has the shim, and through it the delegate, say what they know. ctx bounds all of it.
func (p *pod) ask(ctx context.Context) {
	if p.client == nil { // its state cannot be read
		return
	}
	live := p.askShim(ctx)
	for i := range p.Containers {
		c := &p.Containers[i]
		if p.Silent() {
			c.State = string(p.State)
		} else {
			p.askTask(ctx, c)
		}
		if c.Stream == nil {
			continue
		}
		if _, ok := live.Container(c.ID); ok && c.Stream.Counts != nil {
			p.lastDenial(c)
		} else {
			p.lastEvent(c)
		}
	}
}

// askShim has the shim alone say what it knows, and returns it; nil if it did not.
func (p *pod) askShim(ctx context.Context) *status.Live {
	if p.client == nil { // its state cannot be read
		return nil
	}
	live, err := p.client.Live(ctx)
	switch {
	case err == nil:
		p.State = Running
		p.Shim.Version, p.Shim.PID, p.Shim.Started, p.Shim.Phases = live.Version, live.PID, &live.Started, live.Phases
	case errors.Is(err, status.ErrGone):
		p.State = Dead
		p.problem(p.dead())
	case errors.Is(err, status.ErrUnknown): // an older shim
		p.State = Running
		p.problem(err)
	default:
		p.State = Unreachable
		p.problem(err)
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		if of, ok := live.Container(c.ID); ok && c.Stream != nil {
			c.Stream.Stalls = of.Stalls
			if of.Counts != nil {
				c.Stream.Events, c.Stream.Counts, c.Stream.Counted = of.Seq, of.Counts, Instance
			}
		}
	}
	return live
}

// dir is where the directory of the container's stream is reached.
func (p *pod) dir(c *Container) string { return filepath.Join(p.root, c.Stream.Dir) }

// dead says what follows from a shim that is gone.
func (p *pod) dead() error {
	if p.Delegate.Alive {
		return fmt.Errorf("%w, its delegate (process %d) runs on: what its containers do is not recorded, until containerd ends them", status.ErrGone, p.Delegate.PID)
	}
	return fmt.Errorf("%w, and so is its delegate; containerd has not cleaned up yet", status.ErrGone)
}

func (p *pod) askTask(ctx context.Context, c *Container) {
	if p.deaf {
		c.State = Unknown
		return
	}
	task, err := p.client.Task(ctx, c.ID)
	switch {
	case errors.Is(err, status.ErrUnknown): // the delegate does not know it yet, or no more
		c.State = Creating
		return
	case err != nil:
		c.State = Unknown
		p.deaf = errors.Is(err, status.ErrSilent)
		p.problem(err)
		return
	}
	c.State, c.PID = task.State, task.PID
	if !task.Exited.IsZero() {
		c.ExitStatus, c.Exited = &task.Status, &task.Exited
	}
}

// lastDenial reads the newest denial where the shim says that it is.
func (p *pod) lastDenial(c *Container) {
	if at := c.Stream.Counts.Places.Denials; len(at) > 0 {
		c.Stream.LastDenial = p.read(c, &at[len(at)-1])
	}
}

// lastEvent reads the end of the stream of a container whose shim does not tell.
func (p *pod) lastEvent(c *Container) {
	line, err := segment.Last(p.dir(c))
	if err == nil && line != nil {
		var r *record.Record
		if r, err = record.Parse(line); err == nil {
			c.Stream.Events = r.Seq
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problem(fmt.Errorf("stream of container %s: %w", c.Name, err))
	}
}

// read reads one record of a container's stream; nil if there is none, or if it is gone already.
func (p *pod) read(c *Container, at *stream.Position) *Record {
	if at == nil {
		return nil
	}
	line, err := segment.ReadAt(p.dir(c), *at)
	if errors.Is(err, fs.ErrNotExist) { // retention was faster
		return nil
	}
	var r *record.Record
	if err == nil {
		r, err = record.Parse(line)
	}
	if err != nil {
		p.problem(fmt.Errorf("stream of container %s: %w", c.Name, err))
		return nil
	}
	return &Record{*r}
}
