// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/integration/stand"
)

// outcome is how a spec ended: "passed", "failed", "skipped", and what else Ginkgo says.
type outcome struct {
	state   string
	message string
}

// report maps a spec's full name to how it ended.
type report map[string]outcome

// readReport reads Ginkgo's JSON report (https://onsi.github.io/ginkgo/#generating-machine-readable-reports).
func readReport(path string) (report, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(content, &suites); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	found := report{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			if spec.LeafNodeType != "It" {
				continue
			}
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			found[name] = outcome{spec.State, spec.Failure.Message}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no specs", path)
	}
	return found, nil
}

func (r report) summary() string {
	counts := map[string]int{}
	for _, o := range r {
		counts[o.state]++
	}
	return fmt.Sprintf("%d specs ran: %d passed, %d failed; %d skipped", len(r)-counts["skipped"], counts["passed"],
		len(r)-counts["skipped"]-counts["passed"], counts["skipped"])
}

// expectation explains one outcome that is not as one would wish. Node, Delegate, Placement, Containerd and Stand say where it
// holds; what is empty does not matter.
type expectation struct {
	Run        string // a run's profile; "delegate": it fails on this stand; else: it ends otherwise than under the delegate alone
	Node       string // what -node names
	Delegate   string
	Placement  stand.Placement
	Containerd stand.Version
	Stand      bool   // it holds with the stand's own guests, not with those of Kata as it is installed
	Spec       string // the spec's full name, or its end
	Outcome    string // how it ends
	Reason     string
}

// of tells whether an expectation is about a run.
func (e expectation) of(r run, o options) bool {
	return e.Run == r.profile && (e.Node == "" || e.Node == o.node) && (e.Delegate == "" || e.Delegate == o.Delegate.Name) &&
		(e.Placement == "" || e.Placement == r.placement) && (e.Containerd == "" || e.Containerd == o.Version) && (!e.Stand || stand.OnTheStand())
}

func readExpectations(path string) ([]expectation, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []expectation
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i, e := range all {
		if e.Run == "" || e.Spec == "" || e.Outcome == "" || e.Reason == "" {
			return nil, fmt.Errorf("%s: entry %d: run, spec, outcome and reason must all be there", path, i+1)
		}
	}
	return all, nil
}

// compare prints failures of the first run and differences of the others, with what explains them. What nothing explains,
// and an explanation of something that did not happen, is an error.
func compare(w io.Writer, o options, made []run, reports map[run]report, expected []expectation, partial bool) error {
	met := map[expectation]map[run]bool{}
	for _, e := range expected {
		met[e] = map[run]bool{}
	}
	unexplained := 0
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(r run, spec string, was string, is outcome) {
		i := slices.IndexFunc(expected, func(e expectation) bool {
			return e.of(r, o) && e.Outcome == is.state && strings.HasSuffix(spec, e.Spec)
		})
		reason := "UNEXPLAINED " + firstLine(is.message)
		if i < 0 {
			unexplained++
		} else {
			reason = expected[i].Reason
			met[expected[i]][r] = true
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r, spec, was, is.state, reason)
	}
	_, _ = fmt.Fprintln(table, "\nRUN\tSPEC\tDELEGATE ALONE\tHERE\tREASON")
	first := reports[made[0]]
	for _, spec := range slices.Sorted(maps.Keys(first)) {
		if o := first[spec]; o.state != "passed" && o.state != "skipped" {
			row(made[0], spec, o.state, o)
		}
	}
	for _, r := range made[1:] {
		here := reports[r]
		names := maps.Clone(first)
		maps.Copy(names, here)
		for _, spec := range slices.Sorted(maps.Keys(names)) {
			was, is := first[spec], here[spec]
			if was.state != is.state {
				row(r, spec, cmp.Or(was.state, "absent"), outcome{cmp.Or(is.state, "absent"), is.message})
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	stale := 0
	for _, e := range expected {
		for _, r := range made {
			if e.of(r, o) && !met[e][r] && !partial {
				stale++
				_, _ = fmt.Fprintf(w, "expected, but it did not happen: %s: %s: %s\n", r, e.Spec, e.Outcome)
			}
		}
	}
	_, _ = fmt.Fprintf(w, "\n%d unexplained\n", unexplained)
	if unexplained > 0 || stale > 0 {
		return fmt.Errorf("%d outcomes that nothing explains, %d explanations of what did not happen", unexplained, stale)
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
