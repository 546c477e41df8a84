// SPDX-License-Identifier: Apache-2.0

// Command critest runs the CRI conformance suite with the delegate alone and, in each placement of the supervisor, through
// Metsuke with the profiles passthrough and baseline. It prints where the outcomes differ, spec by spec, and fails on a
// difference that the file of expectations does not explain. On Kata it runs the specs that concern a pod.
//
// It runs on stands, or, with -node kind, on the containerd of a kind cluster's node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"metsuke.dev/metsuke/integration/kind"
	"metsuke.dev/metsuke/integration/stand"
)

// A run is one pass of the suite.
type run struct {
	profile   string // what the file of expectations calls it; "delegate" is the delegate alone
	handler   string // "" is the delegate alone
	placement stand.Placement
}

// String is the run's name in output and in names of files.
func (r run) String() string {
	if r.placement == "" {
		return r.profile
	}
	return r.profile + "-" + string(r.placement)
}

// runsOn are the runs that a setup asks for. The first is what the others are compared with.
func runsOn(setup *stand.Setup) []run {
	runs := []run{{profile: "delegate"}}
	placements := []stand.Placement{setup.Placement}
	if setup.Placement == "" {
		placements = setup.Delegate.Placements
	}
	for _, placement := range placements {
		runs = append(runs, run{"passthrough", stand.HandlerPassthrough, placement}, run{"baseline", stand.HandlerBaseline, placement})
	}
	return runs
}

// notOfAPod are the specs that do not run on Kata. Most are about images and the node. Kata has no host network, containerd
// forwards ports to the pod's network namespace, where nobody listens, and the stand's guests have no SELinux and AppArmor.
const notOfAPod = "Image Manager|HostNetwork|portforward|AppArmor|SELinux|NRI"

type options struct {
	*stand.Setup
	node, out, expected, focus, only, one string
	parallel                              int
}

// A site is where runs are made.
type site interface {
	about() string
	make(r run) error // makes a run, and leaves its log and report in their files; a spec that fails is no error
}

func main() {
	o := options{Setup: stand.SetupFlags()}
	flag.StringVar(&o.node, "node", "stand", "`what` containerd runs on: stand, or kind for a node of a kind cluster (with runc)")
	flag.StringVar(&o.out, "out", "", "`directory` for reports and logs (default: a temporary one)")
	flag.StringVar(&o.expected, "expected", "critest/expected.yaml", "`file` with the differences that are intended, and why")
	flag.StringVar(&o.focus, "focus", "", "run only the specs that match this `expression`")
	flag.StringVar(&o.only, "only", "", "comma-separated `names` of the runs to make, such as delegate,baseline-guest")
	flag.IntVar(&o.parallel, "parallel", 3, "`number` of runs to make at once, each in a stand of its own")
	flag.StringVar(&o.one, "one", "", "used by this command itself: make this one run, here")
	flag.Parse()
	switch {
	case o.one != "":
		stand.Enter(append(o.Tools(), "critools")...)
		exitOn(runSuite(o))
	case o.node == "kind":
		kind.Enter()
		exitOn(onKind(o))
	case o.node == "stand":
		exitOn(compareRuns(o, stands{o}))
	default:
		exitOn(fmt.Errorf("-node %s: one of stand, kind", o.node))
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

// compareRuns makes the runs and compares their reports.
func compareRuns(o options, where site) error {
	if o.out == "" {
		dir, err := os.MkdirTemp("", "critest-")
		if err != nil {
			return err
		}
		o.out = dir
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	expected, err := readExpectations(o.expected)
	if err != nil {
		return err
	}
	var chosen []run
	for _, r := range runsOn(o.Setup) {
		if o.only == "" || strings.Contains(","+o.only+",", ","+r.String()+",") {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no run is called %q", o.only)
	}
	for _, r := range chosen { // of an earlier call: they would show as progress
		if err := errors.Join(os.RemoveAll(o.file(r, ".log")), os.RemoveAll(o.file(r, ".json"))); err != nil {
			return err
		}
	}

	fmt.Printf("critest: %d runs on %s; logs and reports in %s\n", len(chosen), where.about(), o.out)
	stop := reportProgress(os.Stderr, o.out, chosen)
	problems := make([]error, len(chosen))
	slots := make(chan struct{}, max(o.parallel, 1))
	var all sync.WaitGroup
	for i, r := range chosen {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			problems[i] = where.make(r)
		})
	}
	all.Wait()
	stop()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	reports := map[run]report{}
	for _, r := range chosen {
		found, err := readReport(o.file(r, ".json"))
		if err != nil {
			return fmt.Errorf("run %s: %w (see %s)", r, err, o.file(r, ".log"))
		}
		fmt.Printf("%-18s %s\n", r, found.summary())
		reports[r] = found
	}
	fmt.Printf("\nAll on %s.\n", where.about()) // beside the table, which is what people copy
	return compare(os.Stdout, o, chosen, reports, expected, o.focus != "")
}

// file is one of the files of a run.
func (o options) file(r run, extension string) string {
	return filepath.Join(o.out, r.String()+extension)
}

// log opens the file of what a run prints.
func (o options) log(r run) (*os.File, error) {
	return os.OpenFile(o.file(r, ".log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
}

// stands make each run in a stand of its own, as a process of its own.
type stands struct{ options }

func (o stands) about() string {
	return fmt.Sprintf("containerd %s with %s", o.Version, o.Delegate.About())
}

// make runs this command again for one run.
func (o stands) make(r run) error {
	log, err := o.log(r)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("/proc/self/exe", "-one", r.String(), "-containerd", string(o.Version), "-delegate", o.Delegate.Name,
		"-placement", string(r.placement), "-out", o.out, "-focus", o.focus)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w (see %s)", r, err, log.Name())
	}
	return nil
}

// runSuite is one run, inside the stand. Specs that fail are no error here: they are in the report.
func runSuite(o options) (err error) {
	var this run
	for _, r := range runsOn(o.Setup) {
		if r.String() == o.one {
			this = r
		}
	}
	if this.handler == "" {
		this.handler = o.Delegate.Name
	}
	// Without an options table, as a node has it that needs user namespaces: see stand.Handler.
	handlers := stand.StandardHandlers()
	for i := range handlers {
		handlers[i].DefaultPlace = handlers[i].Name == this.handler
		handlers[i].Placement = this.placement
	}
	s, err := stand.Start(context.Background(), stand.Options{Version: o.Version, Delegate: o.Delegate, Handlers: handlers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	critest, err := stand.Tool("critools", "critest")
	if err != nil {
		return err
	}
	report, err := filepath.Abs(o.file(this, ".json"))
	if err != nil {
		return err
	}
	before := stand.Snap()
	cmd := exec.Command(critest, o.arguments(this.handler, s.Endpoint(), report)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return err
	}
	if content, err := os.ReadFile(s.LogPath()); err == nil {
		_ = os.WriteFile(o.file(this, ".containerd.log"), content, 0o644)
	}
	return checkLeaks(s, before, this.placement == "")
}

// arguments are those of critest.
func (o options) arguments(handler, socket, report string) []string {
	endpoint := "unix://" + socket
	args := []string{
		"--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "--runtime-handler", handler,
		"--ginkgo.no-color", "--ginkgo.json-report", report,
	}
	if o.focus != "" {
		args = append(args, "--ginkgo.focus", o.focus)
	}
	if o.Delegate == stand.Kata {
		args = append(args, "--ginkgo.skip", notOfAPod)
	}
	return args
}

// leakPatience is how long after the last pod's removal things may still be on their way out.
const leakPatience = time.Minute

// checkLeaks removes what specs that failed left running, and fails on what the removal of all pods leaves. What the delegate
// alone leaves is not ours, and only printed, by kind.
func checkLeaks(s *stand.Stand, before stand.Snapshot, alone bool) error {
	if err := s.RemoveAllPods(context.Background()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), leakPatience)
	defer cancel()
	var problems []error
	kinds := map[string]int{}
	for _, leak := range stand.Leaks(ctx, before, nil) {
		problems = append(problems, fmt.Errorf("left behind: %s", leak))
		kinds[stand.LeakKind(leak)]++
	}
	if !alone {
		return errors.Join(problems...)
	}
	for kind, n := range kinds {
		fmt.Printf("the delegate alone left behind: %s (%d times)\n", kind, n)
	}
	return nil
}
