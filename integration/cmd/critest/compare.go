// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// leakPatience is how long after the last pod's removal things may still be on their way out.
const leakPatience = 15 * time.Second

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

// expectation explains one outcome that is not as one would wish.
type expectation struct {
	Run     string   // "delegate": it fails on this stand; else: it ends otherwise than under the delegate alone
	Spec    string   // the spec's full name, or its end
	Outcome string   // how it ends
	Only    []string // containerd versions; none: all
	Reason  string
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

// explain finds the expectation that holds for an outcome, and marks it as met.
func explain(all []expectation, met []bool, run, version, spec, state string) (string, bool) {
	for i, e := range all {
		if e.Run == run && e.Outcome == state && strings.HasSuffix(spec, e.Spec) && (len(e.Only) == 0 || slices.Contains(e.Only, version)) {
			met[i] = true
			return e.Reason, true
		}
	}
	return "", false
}

// compare prints failures of the first run and differences of the others, with what explains them. What nothing explains,
// and an explanation of something that did not happen, is an error.
func compare(w io.Writer, made []run, reports map[string]report, expected []expectation, version string, partial bool) error {
	met := make([]bool, len(expected))
	unexplained := 0
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(run, spec string, was string, is outcome) {
		reason, ok := explain(expected, met, run, version, spec, is.state)
		if !ok {
			unexplained++
			reason = "UNEXPLAINED " + firstLine(is.message)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", run, spec, was, is.state, reason)
	}
	_, _ = fmt.Fprintln(table, "\nRUN\tSPEC\tDELEGATE ALONE\tHERE\tREASON")
	first := reports[made[0].name]
	for _, spec := range slices.Sorted(maps.Keys(first)) {
		if o := first[spec]; o.state != "passed" && o.state != "skipped" {
			row(made[0].name, spec, o.state, o)
		}
	}
	for _, r := range made[1:] {
		here := reports[r.name]
		names := maps.Clone(first)
		maps.Copy(names, here)
		for _, spec := range slices.Sorted(maps.Keys(names)) {
			was, ok := first[spec]
			if !ok {
				was.state = "absent"
			}
			is, ok := here[spec]
			if !ok {
				is.state = "absent"
			}
			if was.state != is.state {
				row(r.name, spec, was.state, is)
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	stale := 0
	for i, e := range expected {
		applies := len(e.Only) == 0 || slices.Contains(e.Only, version)
		ran := slices.ContainsFunc(made, func(r run) bool { return r.name == e.Run })
		if !met[i] && applies && ran && !partial {
			stale++
			_, _ = fmt.Fprintf(w, "expected, but it did not happen: %s: %s: %s\n", e.Run, e.Spec, e.Outcome)
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
