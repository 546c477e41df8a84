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
	"metsuke.dev/metsuke/cgroups"
)

// Observe sees each event of the delegate before containerd does, and lets those pass that are not about a resident. It
// does not wait for anything but a record's write.
func (s *Service) Observe(topic string, event *anypb.Any) (forward bool) {
	forward, err := s.observe(event)
	if err != nil {
		log.L.WithError(err).WithField("topic", topic).Warn("event of the delegate could not be read")
		return true
	}
	return forward
}

func (s *Service) observe(event *anypb.Any) (forward bool, err error) {
	switch name := event.GetTypeUrl(); name[strings.LastIndex(name, "/")+1:] {
	case "containerd.events.TaskOOM":
		var oom eventsapi.TaskOOM
		if err := proto.Unmarshal(event.GetValue(), &oom); err != nil {
			return false, err
		}
		if c, err := s.lookup(oom.ContainerID); err == nil && c != nil {
			c.noteOOM(true)
		}
	case "containerd.events.TaskExecAdded":
		var added eventsapi.TaskExecAdded
		err := proto.Unmarshal(event.GetValue(), &added)
		return !isResident(added.ExecID), err
	case "containerd.events.TaskExecStarted":
		var started eventsapi.TaskExecStarted
		err := proto.Unmarshal(event.GetValue(), &started)
		return !isResident(started.ExecID), err
	case "containerd.events.TaskExit":
		var exit eventsapi.TaskExit
		if err := proto.Unmarshal(event.GetValue(), &exit); err != nil {
			return false, err
		}
		if c, err := s.lookup(exit.ContainerID); err == nil && c != nil {
			c.observeExit(&exit)
		}
		return !isResident(exit.ID), nil
	case "containerd.events.TaskDelete":
		var deleted eventsapi.TaskDelete
		err := proto.Unmarshal(event.GetValue(), &deleted)
		return !isResident(deleted.ID), err
	}
	return true, nil
}

func (c *container) observeExit(exit *eventsapi.TaskExit) {
	switch {
	case exit.ID == exit.ContainerID:
		c.endStdin("")
		c.noteOOM(false)
		c.exit(exit.ExitStatus, exit.ExitedAt.AsTime())
	case isResident(exit.ID):
		c.super.exited(exit.ExitStatus)
	default:
		c.endStdin(exit.ID)
		c.note(c.exitEvent(exit.ID, exit.ExitStatus, exit.ExitedAt.AsTime()))
	}
}

// countOOMs finds the kernel's own count of OOM kills, while the container's first process is there to find it by.
func (c *container) countOOMs(host *cgroups.Host) {
	counter, err := host.OOMCounter(c.init.number())
	if err != nil {
		return // then the delegate's events are all there is
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ooms = counter
}

// noteOOM records the OOM kills that have no record yet, with the limit that was in force. told says that the delegate
// reports one. containerd 1.7's shim does so from another thread than exits, and sometimes (cgroup v2: often) after the exit
// that the kill has caused, so the kernel's count is looked at then; what the delegate says later is in it already.
func (c *container) noteOOM(told bool) {
	c.mu.Lock()
	kills := c.ooms.Kills()
	fresh := kills > c.oomKills || told && c.oomKills == 0
	if fresh {
		c.oom, c.oomKills = true, kills
	}
	var limit uint64
	if c.current != nil && c.current.Memory != nil && c.current.Memory.Limit != nil && *c.current.Memory.Limit > 0 {
		limit = uint64(*c.current.Memory.Limit)
	}
	c.mu.Unlock()
	if !fresh {
		return
	}
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
	case e.Signal == "SIGKILL" && c.super.killed() > 0:
		e.Cause = audit.CauseProfile
	}
	return &audit.Event{Time: at, Exec: exec, Kind: audit.KindExit, Exit: e}
}
