// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"metsuke.dev/metsuke/integration/stand"
)

// samples are measurements of one thing, in one unit.
type samples []float64

// quantile is the smallest sample that the part q of all does not exceed.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (s samples) p50() float64 { return s.quantile(0.5) }
func (s samples) p99() float64 { return s.quantile(0.99) }

func (s samples) sum() (sum float64) {
	for _, x := range s {
		sum += x
	}
	return sum
}

// row is one line of the table; cells that do not apply are empty.
type row struct {
	what, n            string
	without50, with50  string
	without99, with99  string
	ratio, aim, result string
}

type table struct {
	rows   []row
	prefix string // of what lines that are added from now on are about
}

// compare adds a line that compares samples without and with Metsuke by their medians; the aim is the largest ratio.
func (t *table) compare(what, unit string, without, with samples, aim float64) {
	ratio := with.p50() / without.p50()
	r := row{
		what: what, n: fmt.Sprint(len(with)), ratio: fmt.Sprintf("%.2f", ratio),
		without50: number(without.p50(), unit), without99: number(without.p99(), unit),
		with50: number(with.p50(), unit), with99: number(with.p99(), unit),
	}
	if aim > 0 {
		r.aim, r.result = fmt.Sprintf("≤ %.2f ×", aim), verdict(ratio <= aim)
	}
	t.add(r)
}

// add adds a line by hand.
func (t *table) add(r row) {
	r.what = t.prefix + r.what
	t.rows = append(t.rows, r)
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func number(x float64, unit string) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f %s", x, unit)
	case x >= 10:
		return fmt.Sprintf("%.1f %s", x, unit)
	}
	return fmt.Sprintf("%.2f %s", x, unit)
}

// markdown is the table with the machine that it was measured on.
func (t *table) markdown(where string) string {
	var out strings.Builder
	lines := [][]string{{"what", "n", "alone p50", "p99", "Metsuke p50", "p99", "ratio", "aim", ""}}
	lines = append(lines, []string{"---", "---", "---", "---", "---", "---", "---", "---", "---"})
	for _, r := range t.rows {
		lines = append(lines, []string{r.what, r.n, r.without50, r.without99, r.with50, r.with99, r.ratio, r.aim, r.result})
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, line := range lines {
		out.WriteString("|")
		for i, cell := range line {
			pad := " "
			if cell == "---" {
				cell, pad = strings.Repeat("-", widths[i]), " "
			}
			out.WriteString(pad + cell + strings.Repeat(" ", widths[i]-len([]rune(cell))) + " |")
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(&out, "\nMeasured on %s. Ratios are of medians, both sides measured in turns in one run.\n", where)
	return out.String()
}

// machine describes what the numbers were measured on.
func machine() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // who built it says nothing
	groups := "v1"
	if stand.Unified() {
		groups = "v2"
	}
	return fmt.Sprintf("Linux %s, %d CPUs, cgroup %s", kernel, runtime.NumCPU(), groups)
}

// writeBetween puts the text between two markers of a Markdown file, <!-- NAME:begin --> and <!-- NAME:end -->.
func writeBetween(path, name, text string) error {
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(content), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", path, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
