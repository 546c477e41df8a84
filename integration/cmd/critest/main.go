// SPDX-License-Identifier: Apache-2.0

// Command critest runs the CRI conformance suite three times: with the delegate alone, through Metsuke with the profile
// passthrough, and with baseline. It prints where the outcomes differ, spec by spec, and fails on a difference that the
// file of expectations does not explain.
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

	"metsuke.dev/metsuke/integration/stand"
)

// A run is one pass of the suite.
type run struct {
	name    string // in output and in the file of expectations
	handler string
}

// runs: the first is what the others are compared with.
var runs = []run{
	{"delegate", "runc"},
	{"passthrough", stand.HandlerPassthrough},
	{"baseline", stand.HandlerBaseline},
}

type options struct {
	version, out, expected, focus, only, one string
	sequential                               bool
}

func main() {
	var o options
	flag.StringVar(&o.version, "containerd", string(stand.V2), "containerd `version`, 2.4 or 1.7")
	flag.StringVar(&o.out, "out", "", "`directory` for reports and logs (default: a temporary one)")
	flag.StringVar(&o.expected, "expected", "critest/expected.yaml", "`file` with the differences that are intended, and why")
	flag.StringVar(&o.focus, "focus", "", "run only the specs that match this `expression`")
	flag.StringVar(&o.only, "only", "", "comma-separated `names` of the runs to make: delegate, passthrough, baseline")
	flag.BoolVar(&o.sequential, "sequential", false, "one run after the other; default is all at once, each in a stand of its own")
	flag.StringVar(&o.one, "one", "", "used by this command itself: make this one run, here")
	flag.Parse()
	if o.one != "" {
		stand.Enter(stand.Version(o.version).Set(), "runc", "cni", "critools")
		exitOn(runSuite(o))
		return
	}
	exitOn(compareRuns(o))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

// compareRuns makes the runs, each as a process of its own, and compares their reports.
func compareRuns(o options) error {
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
	for _, r := range runs {
		if o.only == "" || strings.Contains(","+o.only+",", ","+r.name+",") {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no run is called %q", o.only)
	}

	fmt.Printf("critest: %d runs on containerd %s; logs and reports in %s\n", len(chosen), o.version, o.out)
	problems := make([]error, len(chosen))
	var all sync.WaitGroup
	for i, r := range chosen {
		all.Add(1)
		start := func() {
			defer all.Done()
			problems[i] = startRun(o, r)
		}
		if o.sequential {
			start()
		} else {
			go start()
		}
	}
	all.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	reports := map[string]report{}
	for _, r := range chosen {
		found, err := readReport(filepath.Join(o.out, r.name+".json"))
		if err != nil {
			return fmt.Errorf("run %s: %w (see %s)", r.name, err, filepath.Join(o.out, r.name+".log"))
		}
		fmt.Printf("%-12s %s\n", r.name, found.summary())
		reports[r.name] = found
	}
	return compare(os.Stdout, chosen, reports, expected, o.version, o.focus != "")
}

// startRun runs this command again for one run, with its output in a log.
func startRun(o options, r run) error {
	log, err := os.OpenFile(filepath.Join(o.out, r.name+".log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("/proc/self/exe", "-one", r.name, "-containerd", o.version, "-out", o.out, "-focus", o.focus)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w (see %s)", r.name, err, log.Name())
	}
	return nil
}

// runSuite is one run, inside the stand. Specs that fail are no error here: they are in the report.
func runSuite(o options) (err error) {
	var handler string
	for _, r := range runs {
		if r.name == o.one {
			handler = r.handler
		}
	}
	// Without an options table, as a node has it that needs user namespaces: see stand.Handler.
	handlers := stand.StandardHandlers()
	for i := range handlers {
		handlers[i].DefaultPlace = handlers[i].Name == handler
	}
	s, err := stand.Start(context.Background(), stand.Options{Version: stand.Version(o.version), Handlers: handlers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	critest, err := stand.Tool("critools", "critest")
	if err != nil {
		return err
	}
	report, err := filepath.Abs(filepath.Join(o.out, o.one+".json"))
	if err != nil {
		return err
	}
	endpoint := "unix://" + s.Endpoint()
	args := []string{
		"--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "--runtime-handler", handler,
		"--ginkgo.no-color", "--ginkgo.json-report", report,
	}
	if o.focus != "" {
		args = append(args, "--ginkgo.focus", o.focus)
	}
	before := stand.Snap()
	cmd := exec.Command(critest, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return err
	}
	if content, err := os.ReadFile(s.LogPath()); err == nil {
		_ = os.WriteFile(filepath.Join(o.out, o.one+".containerd.log"), content, 0o644)
	}
	return checkLeaks(s, before)
}

// checkLeaks removes what specs that failed left running, and fails on what the removal of all pods leaves.
func checkLeaks(s *stand.Stand, before stand.Snapshot) error {
	if err := s.RemoveAllPods(context.Background()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), leakPatience)
	defer cancel()
	var problems []error
	for _, leak := range stand.Leaks(ctx, before) {
		problems = append(problems, fmt.Errorf("left behind: %s", leak))
	}
	return errors.Join(problems...)
}
