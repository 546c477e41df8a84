// SPDX-License-Identifier: Apache-2.0

package tomlplace

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOf(t *testing.T) {
	const text = `version = 1
[a.b]
c = { d = 1 }
[[s]]
name = "x"
[s.t]
u = 2
[[s]]
name = "y"
  t.u = 3
`
	want := map[string]Place{
		"version": {1, 1}, "a": {2, 2}, "a.b": {2, 4}, "a.b.c": {3, 1}, "a.b.c.d": {3, 7},
		"s[0]": {4, 3}, "s[0].name": {5, 1}, "s": {4, 3}, "s[0].t": {6, 4}, "s[0].t.u": {7, 1},
		"s[1]": {8, 3}, "s[1].name": {9, 1}, "s[1].t": {10, 3}, "s[1].t.u": {10, 5},
	}
	if diff := cmp.Diff(want, Of([]byte(text))); diff != "" {
		t.Error(diff)
	}
}
