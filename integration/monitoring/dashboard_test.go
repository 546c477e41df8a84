// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A target is a query of a panel.
type target struct {
	RefID string `json:"refId"`
	Expr  string `json:"expr"`
}

type board struct {
	Title      string `json:"title"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int    `json:"id"`
		Kind    string `json:"type"`
		Name    string `json:"title"`
		GridPos struct{ X, Y, W, H int }
		Targets []target `json:"targets"`
	} `json:"panels"`
}

// Each query is PromQL, of metrics and labels that there are, and each variable that it names is one of the dashboard's.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&b); err != nil {
		t.Fatal(err)
	}
	known := metrics(t)
	variables := map[string]string{"$__rate_interval": "5m"}
	values := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
	for _, v := range b.Templating.List {
		variables["$"+v.Name] = ".*"
		if v.Type != "query" {
			continue
		}
		query, _ := v.Query.(string)
		m := values.FindStringSubmatch(query)
		if m == nil {
			t.Errorf("variable %s: %q", v.Name, query)
			continue
		}
		check(t, known, "variable "+v.Name, "count by ("+m[2]+") ("+m[1]+")")
	}
	named := regexp.MustCompile(`\$\w+`)
	ids, queries := map[int]bool{}, 0
	for _, p := range b.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: id %d, place %+v", p.Name, p.ID, p.GridPos)
		}
		ids[p.ID] = true
		if (p.Kind == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q of type %s has %d queries", p.Name, p.Kind, len(p.Targets))
		}
		for _, q := range p.Targets {
			queries++
			expr := named.ReplaceAllStringFunc(q.Expr, func(name string) string {
				value, ok := variables[name]
				if !ok {
					t.Errorf("panel %q: there is no variable %s", p.Name, name)
				}
				return value
			})
			check(t, known, "panel "+p.Name, expr)
		}
	}
	if queries < 30 || b.UID != "metsuke" {
		t.Errorf("%d queries, uid %q", queries, b.UID)
	}
}

// What a metric is for is seen somewhere: each is in the dashboard or in an alert.
func TestEachMetricIsUsed(t *testing.T) {
	var all strings.Builder
	for _, file := range []string{dashboard, alerts} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	unused := map[string]bool{
		"metsuke_containers":                         true, // by placement: for questions, not for watching
		"metsuke_profiles_applied_timestamp_seconds": true, // the agent's own; the controller counts acknowledgements
	}
	for name := range metrics(t) {
		if used := strings.Contains(all.String(), name); used == unused[name] {
			t.Errorf("%s: used: %t", name, used)
		}
	}
}
