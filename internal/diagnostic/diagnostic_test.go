// SPDX-License-Identifier: Apache-2.0

package diagnostic

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		in   Error
		want string
	}{
		{Error{File: "a.yaml", Line: 3, Column: 7, Field: "spec.x", Msg: "is wrong", Hint: "expected y"}, "a.yaml:3:7: spec.x: is wrong; expected y"},
		{Error{File: "a.yaml", Line: 3, Msg: "is wrong"}, "a.yaml:3: is wrong"},
		{Error{File: "a.yaml", Column: 7, Msg: "is wrong"}, "a.yaml: is wrong"},
		{Error{Line: 3, Field: "x", Msg: "is wrong"}, "x: is wrong"},
	} {
		if got := c.in.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"memory", "memoryHigh", "cpu", "cpuset", "pids", "swap"}
	for word, want := range map[string]string{
		"memroy": "memory", "MEMORY": "memory", "memory_high": "memoryHigh", "cpus": "cpu", "pid": "pids",
		"sawp": "swap", "bananas": "", "": "", "x": "", "hugepages": "", "io": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestExpected(t *testing.T) {
	if got, want := Expected("kil", []string{"kill", "continue"}), "expected kill or continue; did you mean kill?"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := OneOf([]string{"a", "b", "c"}), "a, b or c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJoinSortsAndAllFinds(t *testing.T) {
	err := fmt.Errorf("profiles: %w", Join([]*Error{{File: "b", Line: 1, Msg: "3"}, {File: "a", Line: 2, Msg: "2"}, {File: "a", Line: 1, Msg: "1"}}))
	all := All(fmt.Errorf("again: %w", errors.Join(err, errors.New("other"))))
	if len(all) != 3 || all[0].Msg != "1" || all[1].Msg != "2" || all[2].Msg != "3" {
		t.Fatalf("got %v", all)
	}
	if Join(nil) != nil {
		t.Error("no faults must be no error")
	}
}

func TestQuoteIsOneLine(t *testing.T) {
	if got, want := Quote("a\nb\x1b[31m"), `"a\nb\x1b[31m"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
