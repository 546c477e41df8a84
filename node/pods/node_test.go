// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/node/pods/podstest"
)

const running = tasktypes.Status_RUNNING

func at(seconds int) time.Time { return podstest.Moment.Add(time.Duration(seconds) * time.Second) }

func events() []audit.Event {
	return []audit.Event{
		{Time: at(0), Kind: audit.KindStart, Receipt: &audit.Receipt{SeccompMode: 2, FilterDigest: "e6d7", NoNewPrivs: true}},
		{Time: at(1), Kind: audit.KindLimit, Limit: &audit.Limit{Operation: "create", Resource: "memory", Requested: "2Gi", Applied: "256Mi"}},
		{Time: at(2), Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "execve", Class: "exec", Verdict: audit.VerdictAllowed}},
		denied(3, "ptrace", "no-ptrace", 0),
		{Time: at(4), Kind: audit.KindExec, Exec: "shell", ExecStart: &audit.ExecStart{Argv: []string{"sh"}}},
		denied(5, "bpf", "no-bpf", 20),
		{Time: at(6), Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 3}},
	}
}

func denied(second int, call, rule string, count uint64) audit.Event {
	return audit.Event{Time: at(second), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		Syscall: call, Verdict: audit.VerdictDenied, Errno: "EPERM", Origin: "baseline", RuleID: rule, Count: count, Until: at(second + 1),
	}}
}

func node(n *podstest.Node) *Node { return &Node{StateDir: n.State(), Patience: time.Minute} }

func list(t *testing.T, n *Node, f Filter) []Pod {
	t.Helper()
	got, err := n.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestList(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "team-b", Name: "web", ID: "bbbb", Shim: podstest.Answers, Containers: []podstest.Container{
		{Name: "server", ID: "b1", Passthrough: true, Profile: "passthrough", State: running},
	}})
	n.Add(podstest.Pod{Namespace: "team-a", Name: "coder", ID: "aaaa", Containers: []podstest.Container{
		{Name: "agent", ID: "a1", Events: events(), State: running},
		{Name: "done", ID: "a2", Events: events()[:1], State: tasktypes.Status_STOPPED, Exit: 3},
		{Name: "coming", ID: "a3"},
	}})
	n.Add(podstest.Pod{ID: "cccc", Shim: podstest.Starting})
	if err := os.MkdirAll(filepath.Join(n.State(), "somebody else's"), 0o700); err != nil {
		t.Fatal(err)
	}
	got := list(t, node(n), Filter{})
	var lines []string
	for _, p := range got {
		if p.Problems != nil || p.V != Version || p.Shim.PID != podstest.PID || !p.Delegate.Alive || !p.Created.Equal(podstest.Moment) {
			t.Errorf("%+v", p)
		}
		for _, c := range p.Containers {
			line := fmt.Sprintf("%s/%s %s %s %s %q", p.Namespace, p.Name, p.State, c.Name, c.State, c.Placement)
			if s := c.Stream; s != nil {
				n, _ := s.Denied()
				line += fmt.Sprintf(" %d %d %s", s.Events, n, s.Counted)
				if s.LastDenial != nil {
					line += " " + s.LastDenial.Event.Syscall.Syscall
				}
			}
			lines = append(lines, line)
		}
	}
	want := []string{
		`team-a/coder running agent running "host" 7 21 instance bpf`,
		`team-a/coder running done stopped "host" 1 0 instance`,
		`team-a/coder running coming creating "host" 0 0 instance`,
		`team-b/web running server running ""`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if c := got[0].Containers[1]; c.ExitStatus == nil || *c.ExitStatus != 3 {
		t.Errorf("exit status of what is stopped: %v", c.ExitStatus)
	}
	for _, test := range []struct {
		filter Filter
		want   int
	}{
		{Filter{Pods: []string{"coder"}}, 1},
		{Filter{Pods: []string{"team-a/coder", "web"}}, 2},
		{Filter{Pods: []string{"team-b/coder", "aaaa", ""}}, 0},
		{Filter{Namespaces: []string{"team-b"}}, 1},
		{Filter{Namespaces: []string{"team-b"}, Pods: []string{"coder"}}, 0},
	} {
		if got := list(t, node(n), test.filter); len(got) != test.want {
			t.Errorf("%+v: %d pods, want %d", test.filter, len(got), test.want)
		}
	}
}

// A shim that is stuck holds up no other, however many there are; and what each kind of silence means is told.
func TestSilentShims(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	const stuck = 40
	one := []podstest.Container{{Name: "c", ID: "c", Events: events(), State: running}}
	add := func(name string, shim podstest.Shim) {
		c := slices.Clone(one)
		c[0].ID = "c-of-" + name
		n.Add(podstest.Pod{Namespace: "ns", Name: name, ID: name, Shim: shim, Containers: c})
	}
	for i := range stuck {
		add(fmt.Sprintf("stuck-%02d", i), podstest.Stuck)
	}
	add("answers", podstest.Answers)
	add("killed", podstest.Killed)
	add("older", podstest.Older)
	add("deaf", podstest.Deaf)
	two := append(slices.Clone(one), one[0])
	two[0].ID, two[1].ID = "first", "second"
	n.Add(podstest.Pod{Namespace: "ns", Name: "deaf twice", ID: "deaf2", Shim: podstest.Deaf, Containers: two})
	const patience = 15 * time.Second // those that answer are to be heard in it, beside other tests
	// One after the other they would take four times as long as this.
	ctx, cancel := context.WithTimeout(t.Context(), stuck*patience/4)
	defer cancel()
	got, err := (&Node{StateDir: n.State(), Patience: patience}).List(ctx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		state     State
		container string
		problem   string
		counted   Counted
	}{
		"answers": {Running, "running", "", Instance},
		"killed":  {Dead, "dead", "runs on", NotCounted},
		"older":   {Running, "running", "does not know", NotCounted},
		"deaf":    {Running, Unknown, "no answer in time", Instance},
	}
	for _, p := range got {
		if p.Name == "deaf twice" {
			if len(p.Problems) != 1 || p.Containers[0].State != Unknown || p.Containers[1].State != Unknown {
				t.Errorf("a delegate that says nothing of two containers: %+v", p)
			}
			continue
		}
		w, ok := want[p.Name]
		if !ok {
			w = want["deaf"]
			w.state, w.container, w.counted = Unreachable, "unreachable", NotCounted
		}
		c := p.Containers[0]
		if p.State != w.state || c.State != w.container || c.Stream.Counted != w.counted || c.Stream.Events != 7 || c.Profile != "baseline" {
			t.Errorf("%s: state %s, container %+v", p.Name, p.State, c)
		}
		if text := strings.Join(p.Problems, "\n"); w.problem == "" && text != "" || !strings.Contains(text, w.problem) {
			t.Errorf("%s: problems %q, want %q", p.Name, text, w.problem)
		}
	}
	if len(got) != stuck+5 {
		t.Errorf("%d pods", len(got))
	}
}

// What is left on disk may be half there, damaged, or another pod's.
func TestStaleState(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	one := func(name string) podstest.Pod {
		return podstest.Pod{Namespace: "ns", Name: name, ID: name, Containers: []podstest.Container{{Name: "c", ID: "c-of-" + name, State: running}}}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(n.Add(one("damaged")), "shim.json"), "{")
	moved := n.Add(one("moved"))
	if err := os.Rename(moved, filepath.Join(n.State(), strings.Repeat("0f", 16))); err != nil {
		t.Fatal(err)
	}
	n.Add(one("record"))
	write(filepath.Join(n.Dir, "bundles", "c-of-record", "metsuke.json"), `{"owner":[]}`)
	n.Add(one("gone"))
	if err := os.RemoveAll(filepath.Join(n.Dir, "bundles", "c-of-gone")); err != nil {
		t.Fatal(err)
	}
	for _, p := range list(t, node(n), Filter{}) {
		text := strings.Join(p.Problems, "\n")
		switch p.Name {
		case "gone": // is being deleted
			if text != "" || len(p.Containers) != 0 || p.State != Running {
				t.Errorf("gone: %+v", p)
			}
		case "record":
			if !strings.Contains(text, "metsuke.json") && !strings.Contains(text, "record in") || p.State != Running {
				t.Errorf("record: %+v", p)
			}
		case "":
			if p.State != Dead || !strings.Contains(text, "shim.json") && !strings.Contains(text, "of another directory") {
				t.Errorf("%+v", p)
			}
		default:
			t.Errorf("%+v", p)
		}
	}
	if _, err := (&Node{StateDir: filepath.Join(n.Dir, "none")}).List(t.Context(), Filter{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no state directory: %v", err)
	}
}

func TestManyPods(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	const count = 300 // more than are asked at a time
	for i := range count {
		n.Add(podstest.Pod{Namespace: "ns", Name: fmt.Sprintf("p%03d", i), ID: fmt.Sprintf("id-%03d", i), Containers: []podstest.Container{
			{Name: "c", ID: fmt.Sprintf("c-%03d", i), Passthrough: true, State: running},
		}})
	}
	got := list(t, node(n), Filter{})
	for i, p := range got {
		if p.Name != fmt.Sprintf("p%03d", i) || p.State != Running || p.Problems != nil {
			t.Fatalf("%d: %+v", i, p)
		}
	}
	if len(got) != count {
		t.Errorf("%d pods, want %d", len(got), count)
	}
}
