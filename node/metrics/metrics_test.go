// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/node/pods/podstest"
	"metsuke.dev/metsuke/shim/status"
)

// newNode makes a node whose root is mounted elsewhere, and its metrics.
func newNode(t *testing.T) (*podstest.Node, *Metrics) {
	t.Helper()
	n := podstest.New(t)
	root := filepath.Join(n.Dir, "root")
	etc := filepath.Join(root, "etc/metsuke")
	text, err := os.ReadFile(n.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.MkdirAll(etc, 0o755), os.WriteFile(filepath.Join(etc, "metsuke-runc.toml"), text, 0o600),
		os.WriteFile(filepath.Join(etc, "broken.toml"), []byte("version = 1\n]"), 0o600),
		os.MkdirAll(filepath.Join(root, filepath.Dir(n.Dir)), 0o755), os.Symlink(n.Dir, filepath.Join(root, n.Dir)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m := New(root, "v1.2.3")
	m.now = func() time.Time { return podstest.Moment.Add(-time.Hour) }
	return n, m
}

func poll(t *testing.T, m *Metrics) {
	t.Helper()
	if err := m.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func denial(origin, rule string, n uint64) audit.Event {
	return audit.Event{Time: podstest.Moment, Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		Syscall: "ptrace", Verdict: audit.VerdictDenied, Origin: origin, RuleID: rule, Count: n, Class: "process",
	}}
}

func events() []audit.Event {
	at := podstest.Moment
	return []audit.Event{
		{Time: at, Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		{Time: at, Kind: audit.KindLimit, Limit: &audit.Limit{Resource: "memory"}},
		{Time: at, Kind: audit.KindSyscall, Syscall: &audit.Syscall{Class: "exec", Verdict: audit.VerdictAllowed}},
		{Time: at, Kind: audit.KindExec, Exec: "a", ExecStart: &audit.ExecStart{}},
		denial("baseline", "no-ptrace", 20),
		denial("pod", "syscalls[3]", 1),
		denial("", "metsuke/launcher", 1),
		denial("baseline", "made-up", 3),
		denial("made\x1b[2Jup", "no-ptrace", 4),
		{Time: at, Kind: audit.KindSyscall, Syscall: &audit.Syscall{Class: "made-up", Verdict: audit.VerdictAllowed}},
		{Time: at, Kind: audit.KindOOM, OOM: &audit.OOM{}},
		{Time: at, Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 7}},
		{Time: at, Kind: audit.KindLoss, Loss: &audit.Loss{Reason: "made-up"}},
	}
}

func phases() (all []status.Phase) {
	var p status.Phases
	p.Took([]audit.Lap{
		{Phase: status.PhaseResolve, Duration: 3 * time.Millisecond}, {Phase: status.PhaseRewrite, Duration: 8 * time.Millisecond},
		{Phase: status.PhaseDelegate, Duration: 120 * time.Millisecond}, {Phase: status.PhaseArmed, Duration: 12 * time.Millisecond},
	})
	p.Failed(status.PhaseArmed)
	return p.Snapshot()
}

// ours are the families that Metsuke makes, as text.
func ours(t *testing.T, from prometheus.Gatherer) string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "metsuke_") {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String()
}

func TestNode(t *testing.T) {
	n, m := newNode(t)
	poll(t, m)
	running := tasktypes.Status_RUNNING
	n.Add(podstest.Pod{Namespace: "agents", Name: "coder", ID: "aaaa", Phases: phases(), Containers: []podstest.Container{
		{Name: "agent", ID: "a1", State: running, Events: events(), Stalls: 2}, {Name: "plain", ID: "a2", Profile: "passthrough", Passthrough: true, State: running},
	}})
	n.Add(podstest.Pod{Namespace: "agents", Name: "stuck", ID: "bbbb", Shim: podstest.Stuck, Containers: []podstest.Container{{Name: "agent", ID: "b1", Events: events()[:1]}}})
	n.Add(podstest.Pod{Namespace: "agents", Name: "dead", ID: "cccc", Shim: podstest.Killed, Containers: []podstest.Container{{Name: "agent", ID: "c1", Events: events()[:5]}}})
	n.Add(podstest.Pod{Namespace: "agents", Name: "starting", ID: "dddd", Shim: podstest.Starting})
	if err := os.Chtimes(n.Profiles(), podstest.Moment, podstest.Moment); err != nil {
		t.Fatal(err)
	}
	poll(t, m)
	poll(t, m) // nothing is counted again
	m.Report(Report{Ready: map[string]bool{"metsuke-runc": true, "metsuke-kata": false}, Refused: true, Applied: podstest.Moment, Told: true})
	m.Report(Report{Ready: map[string]bool{"metsuke-runc": true, "metsuke-kata": false}, Failed: true})
	got := ours(t, m)
	goldentest.Equal(t, "testdata/node.prom", got)
	if problems, err := testutil.GatherAndLint(m); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// What there was when the agent began is in no counter, and what comes then is.
func TestCountersBeginWithTheAgent(t *testing.T) {
	n, m := newNode(t)
	m.now = func() time.Time { return podstest.Moment.Add(time.Hour) }
	n.Add(podstest.Pod{Namespace: "agents", Name: "coder", ID: "aaaa", Phases: phases(), Containers: []podstest.Container{
		{Name: "agent", ID: "a1", State: tasktypes.Status_RUNNING, Events: events(), Stalls: 2},
	}})
	poll(t, m)
	poll(t, m)
	for line := range strings.Lines(ours(t, m)) {
		if !strings.HasPrefix(line, "#") && strings.Contains(line, "_total") && !strings.HasSuffix(line, " 0\n") {
			t.Error(line)
		}
	}
}

// The first look that succeeds is the one from which on is counted; streams of pods that are long gone stay out of it.
func TestFirstLookFails(t *testing.T) {
	n, m := newNode(t)
	m.now = func() time.Time { return podstest.Moment.Add(time.Hour) }
	if err := os.WriteFile(n.State(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Poll(t.Context()); err == nil {
		t.Error("a state directory that is none was looked at")
	}
	if err := os.Remove(n.State()); err != nil {
		t.Fatal(err)
	}
	dir := n.Add(podstest.Pod{Namespace: "agents", Name: "gone", ID: "aaaa", Shim: podstest.Killed, Containers: []podstest.Container{{Name: "agent", ID: "a1", Events: events()}}})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	poll(t, m)
	poll(t, m)
	for line := range strings.Lines(ours(t, m)) {
		if strings.HasPrefix(line, "metsuke_audit_records_total") {
			t.Error(line)
		}
	}
}

// Starts are told once: where their shim says, or by reading where it does not; of containers that run already too.
func TestStartsAreTold(t *testing.T) {
	timing := audit.Event{Time: podstest.Moment, Kind: audit.KindTiming, Timing: &audit.Timing{Image: "i"}}
	for name, began := range map[string]time.Duration{"before it came": -time.Hour, "after it came": time.Hour} {
		t.Run(name, func(t *testing.T) {
			n, m := newNode(t)
			m.now = func() time.Time { return podstest.Moment.Add(began) }
			told := map[string]int{}
			m.TellStarts(func(handler string, r *record.Record) {
				if r.Event.Timing.Image != "i" {
					t.Errorf("%+v", r)
				}
				told[handler+"/"+r.Identity.ContainerID]++
			})
			answers := podstest.Pod{Namespace: "agents", Name: "coder", ID: "aaaa", Containers: []podstest.Container{
				{Name: "agent", ID: "a1", Events: append(events(), timing)}, {Name: "starting", ID: "a2", Events: events()},
			}}
			if began > 0 {
				n.Add(answers)
			}
			poll(t, m)
			if began < 0 {
				n.Add(answers)
			}
			n.Add(podstest.Pod{Namespace: "agents", Name: "dead", ID: "cccc", Shim: podstest.Killed, Containers: []podstest.Container{
				{Name: "agent", ID: "c1", Events: append(events(), timing)},
			}})
			gone := n.Add(podstest.Pod{Namespace: "agents", Name: "gone", ID: "dddd", Shim: podstest.Killed, Containers: []podstest.Container{
				{Name: "agent", ID: "d1", Events: append(events(), timing)},
			}})
			if err := os.RemoveAll(gone); err != nil {
				t.Fatal(err)
			}
			poll(t, m)
			poll(t, m)
			if diff := cmp.Diff(map[string]int{"config/a1": 1, "config/c1": 1, "unknown/d1": 1}, told); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A node without a configuration has the default one, and nothing is wrong with one on which no pod ran.
func TestBareNode(t *testing.T) {
	m := New(t.TempDir(), "v1")
	poll(t, m)
	if got := ours(t, m); !strings.Contains(got, "metsuke_shims_polled_timestamp_seconds") {
		t.Error(got)
	}
}

const docs = "../../docs/metrics.md"

// TestReference holds the table of the reference to the code; -update writes it.
func TestReference(t *testing.T) {
	goldentest.Section(t, docs, "node", New("/", "v1").Table())
}

// BenchmarkPoll is one look at a node of 100 pods.
func BenchmarkPoll(b *testing.B) {
	n := podstest.New(b)
	m := New(b.TempDir(), "v1")
	if err := os.MkdirAll(filepath.Join(m.root, "etc/metsuke"), 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range 100 {
		n.Add(podstest.Pod{Namespace: "agents", Name: fmt.Sprint("p", i), ID: fmt.Sprintf("%04d", i), Containers: []podstest.Container{
			{Name: "agent", ID: fmt.Sprint("c", i), State: tasktypes.Status_RUNNING, Events: events()},
		}})
	}
	text, err := os.ReadFile(n.Config())
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(m.root, "etc/metsuke/config.toml"), text, 0o600), os.MkdirAll(filepath.Join(m.root, filepath.Dir(n.Dir)), 0o755),
		os.Symlink(n.Dir, filepath.Join(m.root, n.Dir)),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Poll(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if n := testutil.CollectAndCount(m.pods); n != 1 {
		b.Fatalf("%d series of pods", n)
	}
}
