// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// shownPod is what is looked at of a pod in metsuke's JSON.
type shownPod struct {
	Namespace, Name, State string
	Delegate               struct {
		Type  string
		Alive bool
	}
	Shim       struct{ PID int }
	Containers []shownContainer
	Problems   []string
}

type shownContainer struct {
	Name, ID, Profile, ProfileDigest, Placement, State string
	Stream                                             *struct {
		Events     uint64
		Counted    string
		LastDenial *stand.Event
		Counts     struct {
			Execs   uint64
			Denials []struct {
				RuleID string
				Count  uint64
			}
		}
	}
	Usage    *struct{ Memory, Pids, PidsLimit uint64 }
	Drift    *struct{ Changed bool }
	Receipt  *stand.Event
	Sessions []stand.Event
	Denials  []stand.Event
}

// metsuke runs the command line for the pods of a handler.
func (h *harness) metsuke(handler, verb string, args ...string) (code int, out, errs string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx, stand.Metsuke("metsuke"), append([]string{verb, "--config", h.ConfigPath(handler)}, args...)...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var failed *exec.ExitError
	if err := cmd.Run(); errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		h.t.Fatal(err)
	}
	return code, o.String(), e.String()
}

// patient is a timeout that does not come: how busy the machine is, is not tested.
const patient = "1m"

// shown is a pod as a verb shows it. The pod has one container.
func (p *pod) shown(verb, timeout string) (code int, shown shownPod) {
	p.h.t.Helper()
	code, out, errs := p.h.metsuke(p.handler, verb, "-o", "json", "--timeout", timeout, p.Config.GetMetadata().GetNamespace()+"/"+p.Config.GetMetadata().GetName())
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Containers) != 1 {
		p.h.t.Fatalf("metsuke %s: %v\n%s%s", verb, err, out, errs)
	}
	return code, shown
}

// Who is on the node sees what runs there, under what, what it uses and what it was denied; and that a shim says nothing.
func TestBaselineInPs(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.shell("workload syscall ptrace; workload syscall mount; exec workload pause")
		h.eventually("the last denial", func() error { // first, for a session's end is recorded later than it happens
			if !p.has("main", denied("mount", "no-mount")) {
				return errors.New("it is not on record")
			}
			return nil
		})
		c.exec("true")
		var got shownPod
		h.eventually("the denials", func() error {
			_, got = p.shown("ps", patient)
			if s := got.Containers[0].Stream; s == nil || len(s.Counts.Denials) < 2 || s.LastDenial == nil || s.LastDenial.Syscall != "mount" {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		shown := got.Containers[0]
		where := string(placement)
		if where == "" {
			where = map[*stand.Delegate]string{stand.Runc: "host", stand.Kata: "guest"}[delegate]
		}
		shims := p.Shims(ourShim)
		if got.State != "running" || !got.Delegate.Alive || len(shims) != 1 || got.Shim.PID != shims[0] || shown.State != "running" ||
			shown.ID != c.ID || shown.Profile != "baseline" || shown.Placement != where || shown.Stream.Counted != "instance" ||
			shown.Stream.Counts.Execs != 1 || got.Problems != nil {
			t.Errorf("ps: %+v, shims %v", got, shims)
		}
		// What ps says is a number of records that the stream had, between these two denials and now.
		if events := p.events("main"); shown.Stream.Events > uint64(len(events)) || events[shown.Stream.Events-1].Time.Before(shown.Stream.LastDenial.Time) {
			t.Errorf("ps says %d events, the stream has %d", shown.Stream.Events, len(events))
		}

		var code int
		h.eventually("the end of the session", func() error { // of which the shim hears by an event
			code, got = p.shown("inspect", patient)
			if n := len(got.Containers[0].Sessions); n > 0 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		shown = got.Containers[0]
		if code != 0 || shown.Receipt == nil || shown.Receipt.Kind != "start" || shown.Usage == nil || shown.Usage.Memory == 0 || shown.Usage.Pids == 0 ||
			shown.Drift == nil || shown.Drift.Changed || len(shown.Denials) != 2 {
			t.Errorf("inspect: code %d, %+v", code, got)
		}
		if code, out, errs := h.metsuke(baseline, "inspect", "--timeout", patient, c.ID[:8]); code != 0 || !strings.Contains(out, "no-ptrace") || errs != "" {
			t.Errorf("inspect by id: code %d\n%s%s", code, out, errs)
		}

		if err := unix.Kill(shims[0], unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		code, got = p.shown("ps", "2s")
		if err := unix.Kill(shims[0], unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if shown := got.Containers[0]; code != 1 || got.State != "unreachable" || shown.State != "unreachable" || shown.Stream.Events == 0 {
			t.Errorf("a shim that is stopped: code %d, %+v", code, got)
		}
	})
}
