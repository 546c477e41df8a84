// SPDX-License-Identifier: Apache-2.0

// Package query reads the audit streams of a node: which records, in which order, and as they come. It
// is for programs that look at streams; it never changes them and takes no locks.
package query

import (
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

// Filter chooses records. Each list that is not empty must have the record's value; the zero Filter
// chooses all. Those from Classes on choose system calls only.
type Filter struct {
	Pods       []string // "pod" or "namespace/pod"
	Namespaces []string
	Containers []string
	Profiles   []string
	Execs      []string // id of an exec session, or its beginning; NoExec for what belongs to none
	Kinds      []audit.Kind
	Since      time.Time // inclusive; zero: no bound. A folded record reaches from its time to its until.
	Until      time.Time // exclusive; zero: no bound

	Classes   []string
	Verdicts  []audit.Verdict
	Syscalls  []string
	Paths     []Path    // fits one of the paths in the arguments
	Addresses []Address // fits one of the addresses of sockets in the arguments
	Process   Process   // the process, and all that descend from it
}

// NoExec in Filter.Execs stands for the container's own processes, which no exec session began.
const NoExec = "-"

// Match tells whether the filter chooses a record, but for Process, which depends on the records before it: Read sees to that.
func (f *Filter) Match(r *record.Record) bool {
	e := &r.Event
	last := e.Time
	call := e.Syscall
	if call == nil {
		call = &noCall
	} else if call.Count > 1 && call.Until.After(last) {
		last = call.Until
	}
	return has(f.Kinds, e.Kind) && has(f.Classes, call.Class) && has(f.Verdicts, call.Verdict) && has(f.Syscalls, call.Syscall) &&
		(f.Since.IsZero() || !last.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		has(f.Namespaces, r.Identity.Namespace) &&
		has(f.Containers, r.Identity.Container) &&
		has(f.Profiles, r.Identity.Profile) &&
		f.matchPod(r.Identity.Namespace, r.Identity.Pod) &&
		f.matchExec(e.Exec) &&
		f.matchPath(call) && f.matchAddress(call)
}

var noCall audit.Syscall

func (f *Filter) matchExec(id string) bool {
	return len(f.Execs) == 0 || slices.ContainsFunc(f.Execs, func(want string) bool {
		if want == NoExec {
			return id == ""
		}
		return strings.HasPrefix(id, want)
	})
}

func (f *Filter) matchPath(call *audit.Syscall) bool {
	return len(f.Paths) == 0 || slices.ContainsFunc(call.Args, func(a audit.Arg) bool {
		return a.IsPath() && slices.ContainsFunc(f.Paths, func(p Path) bool { return p.Match(a.Value) })
	})
}

func (f *Filter) matchAddress(call *audit.Syscall) bool {
	return len(f.Addresses) == 0 || slices.ContainsFunc(call.Args, func(a audit.Arg) bool {
		return a.IsAddress() && slices.ContainsFunc(f.Addresses, func(p Address) bool { return p.Match(a.Value) })
	})
}

// mayMatch tells whether the filter can choose a record of a segment, but for Process.
func (f *Filter) mayMatch(s *index.Summary) bool {
	return s.HasTime(f.Since, f.Until) &&
		anyOf(f.Kinds, func(k audit.Kind) bool { return s.Has(index.Kind, string(k)) }) &&
		anyOf(f.Profiles, func(p string) bool { return s.Has(index.Profile, p) }) &&
		anyOf(f.Execs, func(id string) bool {
			return len(id) < index.ExecChars || s.Has(index.Exec, id[:index.ExecChars])
		}) &&
		anyOf(f.Classes, func(c string) bool { return c == "" || s.Has(index.Class, c) }) &&
		anyOf(f.Verdicts, func(v audit.Verdict) bool { return v == "" || s.Has(index.Verdict, string(v)) }) &&
		anyOf(f.Syscalls, func(name string) bool { return name == "" || s.Has(index.Syscall, name) }) &&
		anyOf(f.Paths, func(p Path) bool { return p.mayBeIn(s) }) &&
		anyOf(f.Addresses, func(a Address) bool { return a.mayBeIn(s) })
}

func anyOf[T any](list []T, is func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, is)
}

func (f *Filter) matchPod(namespace, pod string) bool {
	return len(f.Pods) == 0 || slices.ContainsFunc(f.Pods, func(want string) bool {
		ns, name := splitPod(want)
		return name == pod && (ns == "" || ns == namespace)
	})
}

// MatchStream tells whether a stream can have records that the filter chooses, from its name alone.
func (f *Filter) MatchStream(s stream.Stream) bool {
	return anyOf(f.Namespaces, func(n string) bool { return s.Names(n, "", "") }) &&
		anyOf(f.Containers, func(c string) bool { return s.Names("", "", c) }) &&
		anyOf(f.Pods, func(p string) bool { ns, name := splitPod(p); return s.Names(ns, name, "") })
}

func splitPod(s string) (namespace, pod string) {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return ns, name
	}
	return "", s
}

func has[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }
