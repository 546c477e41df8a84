// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

var began = time.Date(2026, 11, 21, 10, 31, 7, 500_000_000, time.UTC)

const (
	callerTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callerSpan  = "00f067aa0ba902b7"
)

// timed is the record of a start, changed.
func timed(change func(*record.Record)) *record.Record {
	r := &record.Record{
		Seq: 2,
		Identity: audit.Identity{
			Node: "host-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c", Container: "agent", ContainerID: "9f3c", Profile: "coder",
			ProfileDigest: "77aa",
		},
		Event: audit.Event{Time: began.Add(time.Second), Kind: audit.KindTiming, Timing: &audit.Timing{
			Began: began, SandboxID: "5ad0", Delegate: "io.containerd.runc.v2", Placement: "host", Image: "docker.io/library/agent:1",
			Laps: []audit.Lap{
				{Phase: "resolve", Duration: 2 * time.Millisecond},
				{Phase: "delegate", Offset: 3 * time.Millisecond, Duration: 120 * time.Millisecond},
				{Phase: "armed", Offset: 900 * time.Millisecond, Duration: 12 * time.Millisecond},
			},
		}},
	}
	if change != nil {
		change(r)
	}
	return r
}

// shown is a span as it is compared.
type shown struct {
	Name, Trace, ID, Parent string
	Remote                  bool // the parent is
	Begin, End              time.Duration
	Attributes              map[string]any
}

func show(spans tracetest.SpanStubs) (all []shown) {
	for _, s := range spans {
		one := shown{
			Name: s.Name, Trace: s.SpanContext.TraceID().String(), ID: s.SpanContext.SpanID().String(), Remote: s.Parent.IsRemote(),
			Begin: s.StartTime.Sub(began), End: s.EndTime.Sub(began),
		}
		if s.Parent.IsValid() {
			one.Parent = s.Parent.SpanID().String()
		}
		for _, a := range s.Attributes {
			if one.Attributes == nil {
				one.Attributes = map[string]any{}
			}
			one.Attributes[string(a.Key)] = a.Value.AsInterface()
		}
		all = append(all, one)
	}
	return all
}

// spansOf are the spans that records become, each as its end comes.
func spansOf(c Config, records ...*record.Record) []shown {
	memory := tracetest.NewInMemoryExporter()
	t := start(c, sdktrace.WithSyncer(memory))
	for _, r := range records {
		t.Started("metsuke-runc", r)
	}
	return show(memory.GetSpans())
}

// The ids are a part of the form: an agent of another version that reads the same record makes the same spans.
func TestSpans(t *testing.T) {
	const pod, whole = "a852bd4ae20351cd61d61e6d13f54aed", "c52ff71b7a85e8fd"
	attributes := map[string]any{
		"k8s.namespace.name": "team-a", "k8s.pod.name": "coder", "k8s.pod.uid": "6f1c", "k8s.container.name": "agent", "container.id": "9f3c",
		"container.image.name": "docker.io/library/agent", "container.image.tags": []string{"1"}, "metsuke.profile": "coder",
		"metsuke.profile.digest": "77aa", "metsuke.handler": "metsuke-runc", "metsuke.delegate": "io.containerd.runc.v2", "metsuke.placement": "host",
	}
	in := func(trace string, parent string) []shown {
		return []shown{
			{Name: "resolve", Trace: trace, ID: "c8098f10c787057b", Parent: whole, End: 2 * time.Millisecond},
			{Name: "delegate", Trace: trace, ID: "8cabe3954b21d9f5", Parent: whole, Begin: 3 * time.Millisecond, End: 123 * time.Millisecond},
			{Name: "armed", Trace: trace, ID: "e5c7acc580854d0a", Parent: whole, Begin: 900 * time.Millisecond, End: 912 * time.Millisecond},
			{Name: "start container", Trace: trace, ID: whole, Parent: parent, Remote: parent != "", End: 912 * time.Millisecond, Attributes: attributes},
		}
	}
	asked := func(flags string) *record.Record {
		return timed(func(r *record.Record) {
			r.Event.Timing.Traceparent = "00-" + callerTrace + "-" + callerSpan + "-" + flags
		})
	}
	for _, test := range []struct {
		name   string
		record *record.Record
		want   []shown
	}{
		{"nobody asked", timed(nil), in(pod, "")},
		{"the caller traces", asked("01"), in(callerTrace, callerSpan)},
		{"the caller's trace is not sampled", asked("00"), nil},
		{"a caller that is none", timed(func(r *record.Record) { r.Event.Timing.Traceparent = "00-x" }), in(pod, "")},
	} {
		if diff := cmp.Diff(test.want, spansOf(Config{}, test.record)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.name, diff)
		}
	}
}

// Containers of a pod are in one trace, and no two starts share a span.
func TestIDs(t *testing.T) {
	spans := map[string]string{}
	traces := map[string]bool{}
	for name, r := range map[string]*record.Record{
		"first":  timed(nil),
		"second": timed(func(r *record.Record) { r.Identity.ContainerID = "0000" }),
		"again":  timed(func(r *record.Record) { r.Event.Timing.Began = began.Add(1) }),
	} {
		for _, s := range spansOf(Config{}, r) {
			if other, ok := spans[s.ID]; ok {
				t.Errorf("%s of %s has the id of %s", s.Name, name, other)
			}
			spans[s.ID], traces[s.Trace] = s.Name+" of "+name, true
		}
	}
	other := spansOf(Config{}, timed(func(r *record.Record) { r.Event.Timing.SandboxID = "other" }))
	if len(spans) != 12 || len(traces) != 1 || len(other) != 4 || traces[other[0].Trace] {
		t.Errorf("%d spans in traces %v; of another pod %+v", len(spans), traces, other)
	}
	if string(hash("a", "b c")) == string(hash("a b", "c")) || string(hash(`a" "b`)) == string(hash("a", "b")) {
		t.Error("other words have the same hash")
	}
}

// What ended long before the agent came is not told again.
func TestSince(t *testing.T) {
	old, young := timed(nil), timed(func(r *record.Record) { r.Event.Time = began.Add(time.Hour) })
	if got := spansOf(Config{Since: began.Add(time.Minute)}, old, young); len(got) != 4 || got[3].ID != spansOf(Config{}, young)[3].ID {
		t.Errorf("%+v", got)
	}
}

// A stream may be damaged, and what is in it may be anything.
func TestNoSpans(t *testing.T) {
	laps := func(laps ...audit.Lap) *record.Record {
		return timed(func(r *record.Record) { r.Event.Timing.Laps = laps })
	}
	for name, r := range map[string]*record.Record{
		"a receipt":         {Event: audit.Event{Time: began, Kind: audit.KindStart, Receipt: &audit.Receipt{}}},
		"a kind not known":  {Event: audit.Event{Time: began, Kind: "newer"}},
		"no laps":           laps(),
		"many laps":         laps(make([]audit.Lap, audit.MaxLaps+1)...),
		"negative offset":   laps(audit.Lap{Phase: "resolve", Offset: -1}),
		"negative duration": laps(audit.Lap{Phase: "resolve", Duration: -1}),
		"endless":           laps(audit.Lap{Phase: "resolve", Duration: 1<<63 - 1}),
		"years later":       laps(audit.Lap{Phase: "resolve"}, audit.Lap{Phase: "armed", Offset: 1<<63 - 1, Duration: 1<<63 - 1}),
	} {
		if got := spansOf(Config{}, r); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestSplitImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0", 64)
	for reference, want := range map[string][2]string{
		"":                            {"", ""},
		"agent":                       {"agent", ""},
		"agent:1":                     {"agent", "1"},
		"example.test:5000/agent":     {"example.test:5000/agent", ""},
		"example.test:5000/agent:1":   {"example.test:5000/agent", "1"},
		"agent:1" + digest:            {"agent", "1"},
		"example.test/agent" + digest: {"example.test/agent", ""},
		"sha256:00":                   {"sha256", "00"},
	} {
		if name, tag := splitImage(reference); name != want[0] || tag != want[1] {
			t.Errorf("%q: %q, %q", reference, name, tag)
		}
	}
}
