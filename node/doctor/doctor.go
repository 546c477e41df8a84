// SPDX-License-Identifier: Apache-2.0

// Package doctor finds out whether a node holds what Metsuke promises: kernel, containerd and its handlers as they are in force,
// binaries, configurations, profiles, directories, and a canary pod for each handler.
//
// Checks only look, but for the canaries, which leave nothing behind, and for what Run is told to mend.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"metsuke.dev/metsuke/node/doctor/report"
)

// Severity is how bad a finding is.
type Severity = report.Severity

// Repair is what was done about a finding.
type Repair = report.Repair

// The severities.
const (
	OK   = report.OK
	Warn = report.Warn
	Fail = report.Fail
	Skip = report.Skip
)

// Finding is what a check found, and how it is mended.
type Finding struct {
	report.Finding

	mend func(context.Context) (did string, err error) // does what Fix says; nil if that is not ours to do
}

// Check is one thing that is looked at.
type Check struct {
	Name  string // stable: scripts name it
	About string // what it looks at, for people
	Mends string // what Run may mend of it; empty: nothing

	run  func(ctx context.Context, s *survey) []Finding
	time time.Duration // that run may take; 0: it bounds its steps itself
}

// look runs the check.
func (c Check) look(ctx context.Context, s *survey) []Finding {
	if c.time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.time)
		defer cancel()
	}
	return c.run(ctx, s)
}

// checkTime bounds what a check waits for: a containerd that hangs is a finding, and holds nobody up.
const checkTime = 30 * time.Second

// checks in their order: what others rest on comes first, and the canary last, which rests on everything.
var checks = []Check{
	{"kernel", "seccomp user notification and its flags, as the kernel answers when it is asked",
		"", checkKernel, checkTime},
	{"cgroups", "the cgroup version, and the controllers of the usual limits",
		"", checkCgroups, checkTime},
	{"clock", "that the clock is plausible and synchronised: records carry its time",
		"", checkClock, checkTime},
	{"containerd", "that it answers, its version, the conditions it reports, and that its restart leaves pods alone",
		"", checkContainerd, checkTime},
	{"handlers", "Metsuke's handlers as containerd has them in force: annotations, options, sandboxer, and what else matters",
		"", checkHandlers, checkTime},
	{"restart", "that what containerd's files say of Metsuke's handlers is in force",
		"", checkRestart, checkTime},
	{"config", "Metsuke's configurations, strictly",
		"", checkConfig, checkTime},
	{"shim", "the shim's binary, and that it is of this version",
		"", checkShim, checkTime},
	{"helper", "metsuke-guest: there, executable in containers, changed by nobody, of the shim's version",
		"the helper's mode", checkHelper, checkTime},
	{"delegate", "the delegate's binary and version, and how runc is told to make cgroups",
		"", checkDelegate, checkTime},
	{"kata", "Kata's configuration: what it needs on the node, and what runs in its guests past every filter",
		"", checkKata, checkTime},
	{"profiles", "profiles and bindings, `default_profile` and `floor`, and that this node can enforce their limits",
		"", checkProfiles, checkTime},
	{"directories", "the directories of streams and state: owner, mode, file system, space",
		"missing directories, and modes", checkDirectories, checkTime},
	{"leftovers", "state of pods that are gone, and canaries of a doctor that was killed",
		"such canaries", checkLeftovers, checkTime},
	{"canary", "a pod for each handler: what its receipt says against what its profile promises",
		"", checkCanary, 0},
}

// Checks returns all checks, in the order in which they run.
func Checks() []Check { return slices.Clone(checks) }

// Options says what Run does.
type Options struct {
	Checks   []string // names; empty: all
	Handlers []string // runtime handlers to look at; empty: all of Metsuke's
	NoCanary bool
	Mend     bool // do the fixes that are safe, and look again
}

// ErrUnknownCheck is wrapped by the error of Run for a check that is not one.
var ErrUnknownCheck = errors.New("no such check")

// Run looks at the node. It blocks for files, for containerd and for programs that it asks for their version: for each check half a minute
// at most, and for each canary a few. When ctx ends, what is left becomes findings that say so. The error is about the options alone.
func Run(ctx context.Context, n *Node, o Options) (*Report, error) {
	chosen, err := choose(o)
	if err != nil {
		return nil, err
	}
	s := newSurvey(ctx, n, o.Handlers)
	r := &Report{Version: n.Version, Findings: []Finding{}}
	for _, c := range chosen {
		found := c.look(ctx, s)
		if o.Mend {
			if repairs := mend(ctx, c.Name, found); len(repairs) > 0 {
				r.Repairs = append(r.Repairs, repairs...)
				found = c.look(ctx, s)
			}
		}
		for _, f := range found {
			f.Check = c.Name
			f.Finding = f.Clean()
			r.Findings = append(r.Findings, f)
		}
	}
	return r, nil
}

func choose(o Options) (chosen []Check, err error) {
	for _, name := range o.Checks {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
			return nil, fmt.Errorf("%w: %q", ErrUnknownCheck, name)
		}
	}
	for _, c := range checks {
		if (len(o.Checks) == 0 || slices.Contains(o.Checks, c.Name)) && (c.Name != "canary" || !o.NoCanary) {
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

func mend(ctx context.Context, check string, found []Finding) (done []Repair) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for _, f := range found {
		if f.mend == nil {
			continue
		}
		r := Repair{Check: check, Subject: report.Clean(f.Subject)}
		did, err := f.mend(ctx)
		if err != nil {
			r.Error = report.Clean(err.Error())
		} else {
			r.Did = report.Clean(did)
		}
		done = append(done, r)
	}
	return done
}

func ok(found string, args ...any) Finding {
	return Finding{Finding: report.Finding{Severity: OK, Found: fmt.Sprintf(found, args...)}}
}

func skip(found string, args ...any) Finding {
	return Finding{Finding: report.Finding{Severity: Skip, Found: fmt.Sprintf(found, args...)}}
}

func warn(found, breaks, fix string) Finding {
	return Finding{Finding: report.Finding{Severity: Warn, Found: found, Breaks: breaks, Fix: fix}}
}

func fail(found, breaks, fix string) Finding {
	return Finding{Finding: report.Finding{Severity: Fail, Found: found, Breaks: breaks, Fix: fix}}
}

// of says what a finding is about.
func (f Finding) of(subject string) Finding {
	f.Subject = subject
	return f
}

// at says where the fix applies.
func (f Finding) at(file string, line int) Finding {
	f.File, f.Line = file, line
	return f
}

// by says how the fix is done.
func (f Finding) by(mend func(context.Context) (string, error)) Finding {
	f.mend = mend
	return f
}

// same says whether another finding says nothing else.
func (f Finding) same(other Finding) bool {
	f.mend, other.mend = nil, nil
	return reflect.DeepEqual(f, other)
}

// about sets the subject of each finding.
func about(subject string, found []Finding) []Finding {
	for i := range found {
		found[i].Subject = subject
	}
	return found
}
