// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"strings"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/audit"
)

// Observe sees each event of the delegate before containerd does, and lets all of them pass. It does not wait for
// anything but a record's write.
func (s *Service) Observe(topic string, event *anypb.Any) (forward bool) {
	if err := s.observe(event); err != nil {
		log.L.WithError(err).WithField("topic", topic).Warn("event of the delegate could not be read")
	}
	return true
}

func (s *Service) observe(event *anypb.Any) error {
	switch name := event.GetTypeUrl(); name[strings.LastIndex(name, "/")+1:] {
	case "containerd.events.TaskOOM":
		var oom eventsapi.TaskOOM
		if err := proto.Unmarshal(event.GetValue(), &oom); err != nil {
			return err
		}
		if c, managed, err := s.lookup(oom.ContainerID); err == nil && managed {
			c.noteOOM()
		}
	case "containerd.events.TaskExit":
		var exit eventsapi.TaskExit
		if err := proto.Unmarshal(event.GetValue(), &exit); err != nil {
			return err
		}
		c, managed, err := s.lookup(exit.ContainerID)
		if err != nil || !managed {
			return nil //nolint:nilerr // not one of ours
		}
		if exit.ID == exit.ContainerID {
			c.exit(c.exitEvent("", exit.ExitStatus, exit.ExitedAt.AsTime()))
		} else {
			c.note(c.exitEvent(exit.ID, exit.ExitStatus, exit.ExitedAt.AsTime()))
		}
	}
	return nil
}

// noteOOM records an OOM kill, with the limit that was in force.
func (c *container) noteOOM() {
	c.mu.Lock()
	c.oom = true
	var limit uint64
	if c.current != nil && c.current.Memory != nil && c.current.Memory.Limit != nil && *c.current.Memory.Limit > 0 {
		limit = uint64(*c.current.Memory.Limit)
	}
	c.mu.Unlock()
	c.note(&audit.Event{Time: time.Now(), Kind: audit.KindOOM, OOM: &audit.OOM{MemoryLimit: limit}})
}

// exitEvent is the record of an end. A status above 128 is a signal, as shells and container runtimes write it.
func (c *container) exitEvent(exec string, status uint32, at time.Time) *audit.Event {
	e := &audit.Exit{Status: status}
	if status > 128 && status <= 128+64 {
		e.Signal = unix.SignalName(unix.Signal(status - 128))
	}
	c.mu.Lock()
	oom, lost := c.oom, c.lost
	c.mu.Unlock()
	switch {
	case e.Signal == "SIGSYS":
		e.Cause = audit.CausePodSeccomp
	case e.Signal == "SIGKILL" && lost:
		e.Cause = audit.CauseLoss
	case e.Signal == "SIGKILL" && oom && exec == "":
		e.Cause = audit.CauseOOM
	case e.Signal == "SIGKILL" && c.watch.Stats().Killed > 0:
		e.Cause = audit.CauseProfile
	}
	return &audit.Event{Time: at, Exec: exec, Kind: audit.KindExit, Exit: e}
}
