// SPDX-License-Identifier: Apache-2.0

package places

import "testing"

func TestPlaces(t *testing.T) {
	p := &Places{Total: 5, Each: 3}
	var leave []func()
	for i, step := range []struct {
		party string
		ok    bool
	}{{"a", true}, {"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", true}, {"b", false}, {"c", false}} {
		l, ok := p.Enter(step.party)
		if ok != step.ok {
			t.Errorf("step %d: %v", i, ok)
		}
		if ok {
			leave = append(leave, l)
		}
	}
	leave[0]()
	if _, ok := p.Enter("a"); !ok {
		t.Error("a place that was left is not free")
	}
	for _, l := range leave[1:] {
		l()
	}
	if p.Taken() != 1 || len(p.of) != 1 {
		t.Errorf("%d are taken, of %v", p.taken, p.of)
	}
}
