// SPDX-License-Identifier: Apache-2.0

// Package stats sums records up into a page: what an agent did. It takes constant memory, whatever and however many they are.
package stats

import (
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/frequent"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
)

// maxContainers bounds how many containers and pods are told apart.
const maxContainers = 1 << 16

// Stats sums records up. Its zero value has none. Not safe for concurrent use.
type Stats struct {
	records    uint64
	from, to   time.Time
	tally      tally.Tally
	exits      uint64
	missing    uint64
	containers map[string]struct{} // by stream
	pods       map[string]struct{}

	programs, written, deleted, read, destinations, listening, denied, sessions, profiles names
}

// names counts names.
type names = frequent.Table[struct{}]

// Add takes a record of a stream in. Nothing of it is kept.
func (s *Stats) Add(r *record.Record, of stream.Stream) {
	e := &r.Event
	s.records++
	until := e.Time
	if c := e.Syscall; c != nil && c.Count > 1 && c.Until.After(until) {
		until = c.Until
	}
	if s.records == 1 || e.Time.Before(s.from) {
		s.from = e.Time
	}
	if s.records == 1 || until.After(s.to) {
		s.to = until
	}
	s.container(of)
	s.tally.Add(e, stream.Position{})
	s.profiles.Add(r.Identity.Profile, 1)
	switch {
	case e.Syscall != nil:
		s.addCall(e.Syscall)
	case e.ExecStart != nil:
		s.sessions.Add(strings.Join(e.ExecStart.Argv, " "), 1)
	case e.Exit != nil && e.Exec == "":
		s.exits++
	}
}

// Missing takes note that records of a stream are not there: those behind after and before next.
func (s *Stats) Missing(_ stream.Stream, after, next uint64) {
	if next > after+1 {
		s.missing += next - after - 1
	}
}

func (s *Stats) container(of stream.Stream) {
	if _, ok := s.containers[of.Path]; ok || len(s.containers) >= maxContainers {
		return
	}
	if s.containers == nil {
		s.containers, s.pods = map[string]struct{}{}, map[string]struct{}{}
	}
	s.containers[of.Path], s.pods[of.Pod] = struct{}{}, struct{}{}
}

func (s *Stats) addCall(c *audit.Syscall) {
	n := max(1, c.Count)
	if c.Verdict != audit.VerdictAllowed {
		s.denied.Add(c.Syscall+" by "+Rule(c.Origin, c.RuleID), n)
		return // it was not done
	}
	for i := range c.Args {
		switch a := &c.Args[i]; {
		case a.IsPath():
			if list := s.paths(c, a.Name); list != nil {
				list.Add(a.Value, n)
			}
		case a.IsAddress() && c.Syscall == "bind":
			s.listening.Add(a.Value, n)
		case a.IsAddress():
			s.destinations.Add(a.Value, n)
		}
	}
}

// paths returns the list that a path of a call belongs to, or nil.
func (s *Stats) paths(c *audit.Syscall, arg string) *names {
	switch c.Class {
	case "exec":
		return &s.programs
	case "file-read":
		return &s.read
	case "file-write":
		if arg == "path" { // else what a link leads to
			return &s.written
		}
	case "file-delete":
		if arg != "to" {
			return &s.deleted
		}
	}
	return nil
}

// Rule names a rule of a profile; without an id it is the profile's default.
func Rule(origin, id string) string {
	switch {
	case id == "":
		return origin + " (default)"
	case origin == "" || strings.HasPrefix(id, origin+"/"):
		return id
	}
	return origin + "/" + id
}
