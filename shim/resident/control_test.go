// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

// TestControl has limits refused, and an answer that does not come.
func TestControl(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	early := make(chan error, 1)
	var s *stage
	s = setUp(t, func(g *guest) {
		go func() { _, err := s.r.Control(t.Context(), nil); early <- err }() // while the resident is launched
		time.Sleep(10 * time.Millisecond)
		g.ready()
		c, _ := g.hear().(channel.Control)
		g.say(channel.Report{ID: c.ID})
		c, _ = g.hear().(channel.Control)
		g.say(channel.Report{ID: c.ID, Problem: "EBUSY"})
		c, _ = g.hear().(channel.Control)
		if !c.Helper {
			g.say(channel.Report{ID: c.ID, Problem: "not asked for the helper"})
		}
		g.say(channel.Report{ID: c.ID, Values: []channel.Value{{File: "pids.max", Text: "max"}}})
		c, _ = g.hear().(channel.Control)
		cancel()
		s2, _ := g.hear().(channel.Control)
		g.say(channel.Report{ID: s2.ID}, channel.Report{ID: c.ID}) // the first is not waited for any more
		g.serve()
	}, nil)
	if _, err := s.r.Control(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("got %v", err)
	}
	s.mustLaunch()
	if err := <-early; err != nil {
		t.Errorf("while it was launched: %v", err)
	}
	if values, err := s.r.Control(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "limits inside the container: EBUSY") {
		t.Errorf("got %+v, %v", values, err)
	}
	if err := s.r.CheckHelper(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.r.Control(t.Context(), []channel.Setting{{File: "../pids.max"}}); !errors.Is(err, channel.ErrValue) {
		t.Errorf("got %v", err)
	}
	if _, err := s.r.Control(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := s.r.Control(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestControlUnanswered has a resident that reads and does not answer, as one that is stopped. Whoever asks has no deadline.
func TestControlUnanswered(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.ready()
		for m := g.hear(); m != nil; m = g.hear() {
			if _, stop := m.(channel.Stop); stop {
				return
			}
		}
	}, nil)
	s.r.patience = time.Millisecond
	s.mustLaunch()
	if _, err := s.r.Control(t.Context(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestManyControls asks for more at once than the resident is asked at once: many exec sessions that begin together.
func TestManyControls(t *testing.T) {
	const many = 4 * maxControls
	s := setUp(t, func(g *guest) {
		g.ready()
		for {
			m, ok := g.hear().(channel.Control)
			if !ok {
				return
			}
			time.Sleep(time.Millisecond)
			g.say(channel.Report{ID: m.ID})
		}
	}, nil)
	s.mustLaunch()
	answers := make(chan error, many)
	for range many {
		go func() {
			_, err := s.r.Control(t.Context(), nil)
			answers <- err
		}()
	}
	for range many {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestGiveUp has a resident that does not do what it must, and is stopped: it is killed, and that is a loss.
func TestGiveUp(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.armed()
		<-g.dead
	}, nil)
	s.mustLaunch()
	s.mustArm()
	if s.r.Gone() {
		t.Error("gone before it was given up")
	}
	s.r.GiveUp(errors.New("no answer"))
	if l := s.loss(); l.Reason != audit.LossSupervisor || l.OnLoss != "kill" || l.Detail != "no answer" {
		t.Errorf("told %+v", l)
	}
	if kept := s.finished(); len(kept) != 1 || kept[0].Loss.Detail != "no answer" {
		t.Errorf("recorded %+v", kept)
	}
	if !s.r.Gone() {
		t.Error("not gone")
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !slices.Contains(s.calls, "Kill") {
		t.Errorf("the delegate was asked for %v", s.calls)
	}
}
