// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/status"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	caller  = "00-" + traceID + "-" + spanID + "-01"
)

func TestTraceparent(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []string
		valid  bool
	}{
		{"sampled", []string{caller}, true},
		{"not sampled", []string{"00-" + traceID + "-" + spanID + "-00"}, true},
		{"flags of a later level", []string{"00-" + traceID + "-" + spanID + "-ff"}, true},
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"two", []string{caller, caller}, false},
		{"another version", []string{"01" + caller[2:]}, false},
		{"no version", []string{"ff" + caller[2:]}, false},
		{"more fields", []string{caller + "-00"}, false},
		{"fewer fields", []string{"00-" + traceID + "-" + spanID}, false},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01"}, false},
		{"no span", []string{"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01"}, false},
		{"capitals", []string{strings.ToUpper(caller)}, false},
		{"no hex", []string{strings.Replace(caller, "4bf", "4bg", 1)}, false},
		{"short trace", []string{strings.Replace(caller, "4bf", "4b", 1)}, false},
		{"long span", []string{strings.Replace(caller, "00f", "000f", 1)}, false},
		{"long flags", []string{caller + "1"}, false},
		{"blank before", []string{" " + caller}, false},
		{"newline behind", []string{caller + "\n"}, false},
		{"a minus for a digit", []string{strings.Replace(caller, "4bf", "4-f", 1)}, false},
		{"very long", []string{strings.Repeat(caller, 10_000)}, false},
	} {
		ctx := t.Context()
		if test.values != nil {
			ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"traceparent": test.values, "tracestate": {"x=1"}})
		}
		want := ""
		if test.valid {
			want = test.values[0]
		}
		if got := traceparent(ctx); got != want {
			t.Errorf("%s: %q, want %q", test.name, got, want)
		}
	}
}

// Who had a container created is kept until it has started.
func TestCreateKeepsItsCaller(t *testing.T) {
	s := kataService(t, nil)
	dir := bundleDir(t, podSpec("container", nil))
	call := taskCall(t, "Create", &taskapi.CreateTaskRequest{ID: "c", Bundle: dir})
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"traceparent": {caller}})
	if _, err := s.Intercept(call)(ctx, call, answerWith(t, &taskapi.CreateTaskResponse{})); err != nil {
		t.Fatal(err)
	}
	c, err := s.lookup("c")
	if err != nil {
		t.Fatal(err)
	}
	if c.caller != caller {
		t.Errorf("the caller is %q", c.caller)
	}
	var phases []string
	for _, l := range c.watch.laps {
		phases = append(phases, l.Phase)
	}
	if diff := cmp.Diff([]string{status.PhaseResolve, status.PhaseRewrite, status.PhaseDelegate}, phases); diff != "" {
		t.Error(diff)
	}
}

func TestTiming(t *testing.T) {
	cfg := config.Default()
	s := &Service{Options: Options{Config: cfg, Pod: &bootstrap.Pod{State: bootstrap.State{ID: "sandbox"}}}}
	c := &container{image: "agent:1", caller: caller, watch: newStopwatch()}
	for range audit.MaxLaps + 3 {
		c.watch.enter(status.PhaseDelegate)
	}
	event := s.timing(c)
	if err := event.Validate(); err != nil {
		t.Error(err)
	}
	want := &audit.Timing{
		Began: c.watch.began, SandboxID: "sandbox", Delegate: cfg.Delegate.RuntimeType, Placement: string(cfg.Supervisor.Placement),
		Image: "agent:1", Traceparent: caller, Laps: c.watch.laps[:audit.MaxLaps],
	}
	if diff := cmp.Diff(want, event.Timing); diff != "" || event.Time.Before(c.watch.began) {
		t.Errorf("at %v\n%s", event.Time, diff)
	}
}

// quiet is a supervision without events.
type quiet struct{ supervision }

func (quiet) drain()         {}
func (quiet) killed() uint64 { return 0 }
func (quiet) close() error   { return nil }

// The record of a container's end comes last, also where it ends before its Start has returned; a Start that hangs does not hold it up.
func TestExitWaitsForStart(t *testing.T) {
	for name, hangs := range map[string]bool{"returns": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pod", "c")
			w, err := stream.OpenWriter(dir, audit.Identity{Container: "c"}, stream.Options{})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				c := &container{stream: w, super: quiet{}, exited: make(chan struct{})}
				over := c.starting()
				c.exit(0, time.Now())
				if !hangs {
					time.Sleep(drainGrace / 2)
					c.note(&audit.Event{Kind: audit.KindTiming, Timing: &audit.Timing{}})
					over()
				}
				<-c.exited
			})
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			line, err := segment.Last(dir)
			if err != nil {
				t.Fatal(err)
			}
			last, err := record.Parse(line)
			if want := map[bool]uint64{false: 2, true: 1}[hangs]; err != nil || last.Event.Kind != audit.KindExit || last.Seq != want {
				t.Errorf("last record: %s, %v", line, err)
			}
		})
	}
}
