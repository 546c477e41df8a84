// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

const (
	reference = "../../docs/metrics.md"
	alerts    = "../../deploy/monitoring/alerts.yaml"
	dashboard = "../../deploy/monitoring/grafana-dashboard.json"
)

// promql has what a server has that nothing was switched on in.
var promql = parser.NewParser(parser.Options{})

// metric is a row of the reference.
type metric struct {
	kind   string
	labels []string
}

// metrics are those of the reference.
func metrics(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(metsuke_\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	all := map[string]metric{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		all[m[1]] = metric{m[2], strings.Fields(strings.ReplaceAll(m[3], "`", ""))}
	}
	if len(all) < 30 {
		t.Fatalf("%s has %d metrics: have its tables lost their form?", reference, len(all))
	}
	return all
}

// check says what is wrong with a query: it must be one, of metrics that there are, by labels that those have, and take rates of counters.
func check(t *testing.T, known map[string]metric, where, query string) {
	t.Helper()
	expr, err := promql.ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			m, ok := lookup(known, n.Name)
			if !ok {
				t.Errorf("%s: there is no metric %s", where, n.Name)
				return nil
			}
			for _, matcher := range n.LabelMatchers {
				if matcher.Name != "__name__" && !slices.Contains(m.labels, matcher.Name) {
					t.Errorf("%s: %s has no label %s", where, n.Name, matcher.Name)
				}
			}
			rated := false
			for _, above := range path {
				if call, ok := above.(*parser.Call); ok {
					rated = rated || call.Func.Name == "rate" || call.Func.Name == "increase"
				}
			}
			if rated != (m.kind != "gauge") {
				t.Errorf("%s: %s is a %s; rated: %t", where, n.Name, m.kind, rated)
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				if !has(known, n.Expr, label) {
					t.Errorf("%s: nothing in %s has a label %s", where, n.Expr, label)
				}
			}
		}
		return nil
	})
}

// lookup finds the metric of a series' name. The labels of a scrape are added, and le of buckets.
func lookup(known map[string]metric, name string) (metric, bool) {
	m, ok := known[name]
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(name, suffix); cut && !ok {
			if m, ok = known[base]; ok && m.kind == "histogram" {
				m.labels = append(slices.Clone(m.labels), "le")
			}
		}
	}
	m.labels = append(slices.Clone(m.labels), "instance")
	return m, ok
}

func has(known map[string]metric, expr parser.Expr, label string) (found bool) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			m, _ := lookup(known, v.Name)
			found = found || slices.Contains(m.labels, label)
		}
		return nil
	})
	return found
}
