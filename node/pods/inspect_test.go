// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"

	"metsuke.dev/metsuke/node/pods/podstest"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "team-a", Name: "coder", ID: "aaaabbbb", Containers: []podstest.Container{
		{Name: "agent", ID: "ccccdddd", Events: events(), State: running, Stats: &cgroup2.Metrics{Pids: &cgroup2.PidsStat{Current: 3, Limit: 64}}},
	}})
	n.Add(podstest.Pod{Namespace: "team-b", Name: "coder", ID: "aaaaeeee"})
	inspect := func(name string, o Options) *Pod {
		t.Helper()
		p, err := node(n).Inspect(t.Context(), name, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, name := range []string{"team-a/coder", "aaaab", "cccc", "ccccdddd"} {
		p := inspect(name, Options{Denials: 1})
		c := p.Containers[0]
		if p.Namespace != "team-a" || c.Receipt == nil || c.Receipt.Event.Receipt.FilterDigest != "e6d7" || c.Usage == nil || c.Usage.Pids != 3 ||
			len(c.Denials) != 1 || c.Denials[0].Event.Syscall.Syscall != "bpf" || len(c.Sessions) != 1 || len(c.Limits) != 1 || len(c.Losses) != 1 ||
			c.Stream.Segments != 1 || c.Stream.Bytes == 0 || p.Problems != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for _, name := range []string{"", "cod", "team-c/coder", "aaa", "zzzz"} {
		var missing *NotFoundError
		if p, err := node(n).Inspect(t.Context(), name, Options{}); !errors.As(err, &missing) || missing.Name != name {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	for _, name := range []string{"coder", "aaaa"} {
		var several *AmbiguousError
		if p, err := node(n).Inspect(t.Context(), name, Options{}); !errors.As(err, &several) || len(several.Pods) != 2 {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	// Counted in the stream, from a time on: a folded denial reaches to its last call.
	c := inspect("cccc", Options{Since: at(6), Denials: 10}).Containers[0]
	if c.Stream.Counted != Since || c.Stream.Counts.Records != 2 || c.Stream.Counts.Denied() != 20 || len(c.Denials) != 1 ||
		c.Receipt == nil || len(c.Sessions) != 1 {
		t.Errorf("since: %+v, counts %+v", c, c.Stream.Counts)
	}
}

// As JSON a pod says all, its records in the form of the stream, and can be read back.
func TestJSON(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "team-a", Name: "evil\x1b[2J\xff\u202e", ID: "aaaabbbb", Containers: []podstest.Container{
		{Name: "agent\n", ID: "ccccdddd", Events: events(), State: running},
	}})
	p, err := node(n).Inspect(t.Context(), "aaaabbbb", Options{Denials: 10})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"ruleID":"no-bpf","origin":"baseline","count":20`) {
		t.Errorf("the denial is not in the stream's form: %s", data)
	}
	var back Pod
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil || string(again) != string(data) {
		t.Errorf("%v\n%s\n%s", err, data, again)
	}
}

// A stream whose shim is gone is read itself, from its newest part, past what is damaged.
func TestInspectDead(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "ns", Name: "p", ID: "pppp", Shim: podstest.Killed, Containers: []podstest.Container{
		{Name: "c", ID: "cccc", Events: events(), State: running},
	}})
	inspect := func() (*Pod, Container) {
		t.Helper()
		p, err := node(n).Inspect(t.Context(), "p", Options{Denials: 10})
		if err != nil {
			t.Fatal(err)
		}
		return p, p.Containers[0]
	}
	_, c := inspect()
	if c.Stream.Counted != Newest || c.Stream.Counts.Records != 7 || len(c.Denials) != 2 || c.Receipt == nil || c.Sessions != nil || c.Usage != nil {
		t.Errorf("%+v, counts %+v", c, c.Stream.Counts)
	}
	segment := filepath.Join(c.Stream.Dir, "00000001.ndjson")
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	lines[3] = "{\"v\":1,\x00\n" // the first denial
	if err := os.WriteFile(segment, []byte(strings.Join(lines, "")+strings.Repeat("x\n", 20)+`{"v":1,"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, c := inspect()
	if c.Stream.Counts.Records != 6 || len(c.Denials) != 1 || !strings.Contains(strings.Join(p.Problems, "\n"), "16 more places are damaged") {
		t.Errorf("%+v, counts %+v, problems %q", c, c.Stream.Counts, p.Problems)
	}
	if err := os.RemoveAll(c.Stream.Dir); err != nil {
		t.Fatal(err)
	}
	p, c = inspect()
	if c.Stream.Counts != nil || c.Receipt != nil || len(p.Problems) != 1 { // that the shim is gone
		t.Errorf("without its stream: %+v, problems %q", c, p.Problems)
	}
}

// What a shim names is read where it is, and nowhere else: retention may have been there, or somebody else.
func TestPlacesThatAreGone(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "ns", Name: "p", ID: "pppp", Containers: []podstest.Container{{Name: "c", ID: "cccc", Events: events(), State: running}}})
	c := list(t, node(n), Filter{})[0].Containers[0]
	segment := filepath.Join(c.Stream.Dir, "00000001.ndjson")
	if err := os.WriteFile(segment, []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := list(t, node(n), Filter{})[0]; p.Containers[0].Stream.LastDenial != nil || len(p.Problems) != 1 || p.State != Running {
		t.Errorf("changed: %+v", p)
	}
	if err := os.Remove(segment); err != nil {
		t.Fatal(err)
	}
	if p := list(t, node(n), Filter{})[0]; p.Containers[0].Stream.LastDenial != nil || p.Problems != nil || p.Containers[0].Stream.Events != 7 {
		t.Errorf("removed: %+v", p)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	n := podstest.New(t)
	n.Config()
	profile := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(n.Profiles(), "p.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inspect := func() *Drift {
		t.Helper()
		p, err := node(n).Inspect(t.Context(), "p", Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Containers[0].Drift
	}
	add := func(digest string) {
		n.Add(podstest.Pod{Namespace: "ns", Name: "p", ID: "pppp", Shim: podstest.Killed, Containers: []podstest.Container{
			{Name: "c", ID: "cccc", Profile: "baseline", Digest: digest},
		}})
	}
	add("other")
	d := inspect()
	if !d.Changed || d.Profile != "baseline" || len(d.Digest) != 64 || d.Error != "" {
		t.Errorf("another digest: %+v", d)
	}
	if err := os.Remove(filepath.Join(n.Dir, "pppp.sock")); err != nil {
		t.Fatal(err)
	}
	add(d.Digest)
	if d := inspect(); d.Changed {
		t.Errorf("unchanged: %+v", d)
	}
	const own = "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: own}\nspec: {extends: [baseline]}\n"
	const bind = "---\napiVersion: metsuke.dev/v1alpha1\nkind: ProfileBinding\nmetadata: {name: ns}\nspec: {namespaces: [ns], default: own}\n"
	profile(own + bind)
	if d := inspect(); !d.Changed || d.Profile != "own" {
		t.Errorf("another profile: %+v", d)
	}
	profile(own + bind + "nonsense: true\n")
	if d := inspect(); !d.Changed || !strings.Contains(d.Error, "p.yaml:") {
		t.Errorf("faults: %+v", d)
	}
}

func TestScanFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, size := range []int64{maxScan, maxScan / 2, maxScan / 2, 10} {
		path := filepath.Join(dir, fmt.Sprintf("%08d.ndjson", i+1))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size), os.Chtimes(path, time.Time{}, at(3600*i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		since time.Time
		want  int
	}{
		{time.Time{}, 3}, {at(0), 1}, {at(2 * 3600), 3}, {at(9 * 3600), 4},
	} {
		if got, err := scanFrom(dir, test.since); err != nil || got != test.want {
			t.Errorf("since %v: from %d, %v; want %d", test.since, got, err, test.want)
		}
	}
	if from, err := scanFrom(t.TempDir(), time.Time{}); err != nil || from != 0 {
		t.Errorf("empty stream: %d, %v", from, err)
	}
	if counts, err := scan(t.Context(), t.TempDir(), time.Time{}); err != nil || counts.Records != 0 {
		t.Errorf("empty stream: %+v, %v", counts, err)
	}
}
