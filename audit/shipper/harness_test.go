// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
)

// A node has streams, and a place for checkpoints.
type node struct {
	t           testing.TB
	root, marks string
	key         *signature.Key
	metrics     *Metrics
}

func newNode(t testing.TB) *node {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &node{t, filepath.Join(dir, "audit"), filepath.Join(dir, "ship"), key, NewMetrics("test")}
}

func identity(pod string) audit.Identity {
	return audit.Identity{
		Node: "worker-1", Namespace: "team-a", Pod: pod, PodUID: "uid-" + pod, Container: "agent", ContainerID: "c-" + pod,
		Profile: "coder", ProfileDigest: strings.Repeat("d", 64),
	}
}

func (n *node) open(pod string, o stream.Options) *stream.Writer {
	n.t.Helper()
	o.Key = n.key
	w, err := stream.OpenWriter(n.dir(pod), identity(pod), o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = w.Close() })
	return w
}

func (n *node) dir(pod string) string { return stream.Dir(n.root, identity(pod)) }

// path is the stream's below the root.
func path(pod string) string { return stream.Dir("", identity(pod)) }

func call(i int) *audit.Event {
	verdicts := []audit.Verdict{audit.VerdictAllowed, audit.VerdictDenied, audit.VerdictKilled}
	return &audit.Event{Time: time.Unix(1_700_000_000, int64(i)), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 7, TID: 7, Comm: "agent\n", Exe: "/bin/agent", Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Verdict: verdicts[i%3],
		Args: []audit.Arg{{Name: "path", Value: fmt.Sprintf("/tmp/%d", i), Evidence: audit.EvidencePeeked}},
	}}
}

func write(t testing.TB, w *stream.Writer, records int) {
	t.Helper()
	for i := range records {
		if err := w.Append(call(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// lines are those of a stream.
func (n *node) lines(pod string) (all []string) {
	n.t.Helper()
	segments, err := stream.Segments(n.dir(pod))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, s := range segments {
		data, err := os.ReadFile(s.Path)
		if err != nil {
			n.t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			all = append(all, strings.TrimSuffix(string(line), "\n"))
		}
	}
	return all
}

// A far side takes what answer has no objection to. Its methods are safe for concurrent use.
type far struct {
	answer func(ctx context.Context, batch []sink.Record) error // nil: takes all

	mu      sync.Mutex
	got     []sink.Record
	ids     map[string]int // how often each came
	batches int
	largest int64
	closed  bool
}

func (f *far) Send(ctx context.Context, batch []sink.Record) error {
	if len(batch) == 0 {
		return errors.New("an empty batch")
	}
	var err error
	if f.answer != nil {
		err = f.answer(ctx, batch)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches++
	var refused *sink.RefusedError
	if err != nil && (!errors.As(err, &refused) || refused.Rest != nil) {
		return err
	}
	var size int64
	for i, r := range batch {
		if refused != nil && slices.ContainsFunc(refused.Refusals, func(one sink.Refusal) bool { return one.Index == i }) {
			continue
		}
		size += int64(len(r.Line))
		f.take(r)
	}
	f.largest = max(f.largest, size)
	return err
}

func (f *far) take(r sink.Record) {
	r.Line = bytes.Clone(r.Line)
	f.got = append(f.got, r)
	if f.ids == nil {
		f.ids = map[string]int{}
	}
	f.ids[r.ID]++
}

func (f *far) Check(context.Context) error { return nil }

func (f *far) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// records are those of a stream, each once, in the order in which they came first.
func (f *far) records(stream string) (lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range f.got {
		if r.Stream == stream && r.Seq > 0 && !seen[r.ID] {
			seen[r.ID] = true
			lines = append(lines, string(r.Line))
		}
	}
	return lines
}

func (f *far) statements(kind audit.Kind) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.got {
		if r.Kind == kind && r.Seq == 0 {
			all = append(all, string(r.Line))
		}
	}
	return all
}

func to(name string, s sink.Sink) Destination {
	return Destination{config.Sink{
		Name: name, Form: config.FormJSON, Batch: config.Batch{Records: 100, Bytes: 64 << 10}, Timeout: time.Minute,
	}, s}
}

func (n *node) options(all ...Destination) Options {
	return Options{Root: n.root, Checkpoints: n.marks, Node: "worker-1", Sinks: all, Metrics: n.metrics, longestWait: 20 * time.Millisecond}
}

// once ships what is there.
func (n *node) once(all ...Destination) {
	n.t.Helper()
	o := n.options(all...)
	o.Once = true
	if err := Run(n.t.Context(), o); err != nil {
		n.t.Fatal(err)
	}
}

// start ships until stop is called.
func (n *node) start(all ...Destination) (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, n.options(all...)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(stop)
	return stop
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in two minutes: " + what)
		}
	}
}

// same tells whether a far side has all of a stream, in its order.
func (n *node) same(f *far, pod string) bool { return slices.Equal(f.records(path(pod)), n.lines(pod)) }

// counter is the value of a series of a sink.
func (n *node) counter(family, name string, more ...string) float64 {
	n.t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	want := slices.Concat([]string{name}, more)
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]bool{}
			for _, l := range m.GetLabel() {
				labels[l.GetValue()] = true
			}
			if slices.Equal(slices.Sorted(maps.Keys(labels)), slices.Sorted(slices.Values(want))) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}
