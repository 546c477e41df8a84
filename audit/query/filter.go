// SPDX-License-Identifier: Apache-2.0

// Package query reads the audit streams of a node: which records, in which order, and as they come. It
// is for programs that look at streams; it never changes them and takes no locks.
package query

import (
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

// Filter chooses records. Each list that is not empty must have the record's value; the zero Filter
// chooses all.
type Filter struct {
	Pods       []string // "pod" or "namespace/pod"
	Namespaces []string
	Containers []string
	Kinds      []audit.Kind
	Classes    []string        // chooses records of kind syscall only
	Verdicts   []audit.Verdict // likewise
	Since      time.Time       // inclusive; zero: no bound. A folded record reaches from its time to its until.
	Until      time.Time       // exclusive; zero: no bound
}

// Match tells whether the filter chooses a record.
func (f *Filter) Match(r *record.Record) bool {
	e := &r.Event
	last := e.Time
	var class string
	var verdict audit.Verdict
	if s := e.Syscall; s != nil {
		class, verdict = s.Class, s.Verdict
		if s.Count > 1 && s.Until.After(last) {
			last = s.Until
		}
	}
	return has(f.Namespaces, r.Identity.Namespace) &&
		has(f.Containers, r.Identity.Container) &&
		f.matchPod(r.Identity.Namespace, r.Identity.Pod) &&
		has(f.Kinds, e.Kind) && has(f.Classes, class) && has(f.Verdicts, verdict) &&
		(f.Since.IsZero() || !last.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until))
}

func (f *Filter) matchPod(namespace, pod string) bool {
	return len(f.Pods) == 0 || slices.ContainsFunc(f.Pods, func(want string) bool {
		ns, name := splitPod(want)
		return name == pod && (ns == "" || ns == namespace)
	})
}

// matchStream tells whether a stream can have records that the filter chooses, from its name alone.
func (f *Filter) matchStream(s stream.Stream) bool {
	anyOf := func(list []string, is func(string) bool) bool {
		return len(list) == 0 || slices.ContainsFunc(list, is)
	}
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
