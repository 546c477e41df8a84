// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"

	"metsuke.dev/metsuke/cluster/acceptance"
)

// marks are of documents that are in force together, one of each, that no other version of it has. Of a profile it changes with what the
// profile extends: a node that has the profile, but an older parent of it, enforces something else.
type marks map[acceptance.Key]string

func mark(verdicts []acceptance.Verdict) marks {
	m := marks{}
	for _, v := range verdicts {
		if v.InForce != nil {
			m[v.Key] = v.Digest + " " + string(v.InForce.Spec)
		}
	}
	return m
}

// sets remembers the newest sets, to know what a node's digest stands for.
type sets struct {
	byDigest map[string]marks
	order    []string // the newest last
}

// maxSets is how many sets are remembered. A node that is further behind counts as not having acknowledged anything.
const maxSets = 64

// add remembers a set, which digest (acceptance.Digest) stands for.
func (s *sets) add(digest string, m marks) {
	if s.byDigest == nil {
		s.byDigest = map[string]marks{}
	}
	s.order = append(slices.DeleteFunc(s.order, func(d string) bool { return d == digest }), digest)
	s.byDigest[digest] = m
	if len(s.order) > maxSets {
		delete(s.byDigest, s.order[0])
		s.order = s.order[1:]
	}
}
