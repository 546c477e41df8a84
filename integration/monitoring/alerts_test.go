// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	engine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// Each alert fires on these series, and on those does not. A sample a minute: a+bxn is a, and then n that are each b more.
var cases = map[string]struct{ fires, silent string }{ // at the end of an hour, or of what ends says
	"MetsukeEventsLost": {
		`metsuke_losses_total{instance="n",handler="h",profile="p",reason="stream-failed"} 0x55 1x5`,
		`metsuke_losses_total{instance="n",handler="h",profile="p",reason="stream-failed"} 0x30 1x30`, // half an hour ago
	},
	"MetsukeShimDown": {
		`metsuke_pods{instance="n",handler="h",profile="p",state="dead"} 1x60`,
		`metsuke_pods{instance="n",handler="h",profile="p",state="running"} 1x60`,
	},
	"MetsukeStreamsStall": {
		`metsuke_stalls_total{instance="n",handler="h",profile="p"} 0+3x60`,
		`metsuke_stalls_total{instance="n",handler="h",profile="p"} 7x60`,
	},
	"MetsukeHandlerNotReady": {
		`metsuke_handler_ready{instance="n",handler="h"} 0x60`,
		`metsuke_handler_ready{instance="n",handler="h"} 0x50 1x10`,
	},
	"MetsukeProfilesRefusedByNode": {`metsuke_profiles_refused{instance="n"} 1x60`, `metsuke_profiles_refused{instance="n"} 0x60`},
	"MetsukeDenialsSpike": {
		`metsuke_denials_total{instance="n",handler="h",profile="p",origin="o",rule="r"} 0+1x1484 2000+600x15`,
		`metsuke_denials_total{instance="n",handler="h",profile="p",origin="o",rule="r"} 0+600x1500`, // as always
	},
	"MetsukeStartsFail": {
		`metsuke_container_start_failures_total{instance="n",handler="h",phase="armed"} 0+1x60`,
		`metsuke_container_start_failures_total{instance="n",handler="h",phase="armed"} 0x58 1x2`,
	},
	"MetsukeStartsSlow": {slow("armed"), slow("delegate")},
	"MetsukeProfileOutdated": {
		`metsuke_outdated_containers{instance="n",handler="h",profile="p"} 2x200
		metsuke_profiles_changed_timestamp_seconds{instance="n"} -90000x200`,
		`metsuke_outdated_containers{instance="n",handler="h",profile="p"} 2x200
		metsuke_profiles_changed_timestamp_seconds{instance="n"} 0x200`,
	},
	"MetsukeAgentCutOff": {
		`metsuke_apiserver_answered_timestamp_seconds{instance="n"} 0x60`,
		`metsuke_apiserver_answered_timestamp_seconds{instance="n"} 0+60x60`,
	},
	"MetsukeAgentStuck": {
		`metsuke_shims_polled_timestamp_seconds{instance="n"} 0x60`,
		`metsuke_shims_polled_timestamp_seconds{instance="n"} 0+60x60`,
	},
	"MetsukeAgentMissing": {`metsuke_controller_nodes{instance="c",state="silent"} 1x60`, `metsuke_controller_nodes{instance="c",state="silent"} 0x60`},
	"MetsukeControllerMissing": {
		`metsuke_controller_elected{instance="c"} 0x60`,
		`metsuke_controller_elected{instance="c"} 0x60
		metsuke_controller_elected{instance="d"} 1x60`,
	},
	"MetsukeDocumentsRefused": {
		`metsuke_controller_documents{instance="c",kind="AgentProfile",state="refused"} 1x60`,
		`metsuke_controller_documents{instance="c",kind="AgentProfile",state="accepted"} 1x60`,
	},
	"MetsukeRolloutStuck": {
		`metsuke_controller_nodes_acknowledged{instance="c"} 2x60
		metsuke_controller_nodes{instance="c",state="reporting"} 3x60`,
		`metsuke_controller_nodes_acknowledged{instance="c"} 2x55 3x5
		metsuke_controller_nodes{instance="c",state="reporting"} 3x60`,
	},
	"MetsukeControllerWritesFail": {
		`metsuke_controller_write_failures_total{instance="c"} 0+2x60`,
		`metsuke_controller_write_failures_total{instance="c"} 0x50 5x10`,
	},
	"MetsukeRecordsNotShipped": {
		`metsuke_ship_lost_records_total{instance="n",sink="s",reason="removed"} 0x55 1x5`,
		`metsuke_ship_lost_records_total{instance="n",sink="s",reason="removed"} 0x30 1x30`, // half an hour ago
	},
	"MetsukeShippingBehind": {
		`metsuke_ship_lag_seconds{instance="n",sink="s"} 400x60`,
		`metsuke_ship_lag_seconds{instance="n",sink="s"} 400x55 1x5`,
	},
	"MetsukeShippingStuck": {
		`metsuke_ship_confirmed_timestamp_seconds{instance="n",sink="s"} 0x60
		metsuke_ship_backlog_bytes{instance="n",sink="s"} 7x60`,
		`metsuke_ship_confirmed_timestamp_seconds{instance="n",sink="s"} 0x60
		metsuke_ship_backlog_bytes{instance="n",sink="s"} 0x60`, // there is nothing to confirm
	},
	"MetsukeCheckpointsFail": {
		`metsuke_ship_checkpoint_failures_total{instance="n",sink="s"} 0+1x60`,
		`metsuke_ship_checkpoint_failures_total{instance="n",sink="s"} 0x45 3x15`,
	},
	"MetsukeBudgetNearlySpent": {
		`metsuke_audit_largest_pod_bytes{instance="n"} 90x60
		metsuke_audit_budget_bytes{instance="n",budget="pod"} 100x60`,
		`metsuke_audit_largest_pod_bytes{instance="n"} 90x60
		metsuke_audit_bytes{instance="n"} 90x60
		metsuke_audit_budget_bytes{instance="n",budget="pod"} 200x60
		metsuke_audit_budget_bytes{instance="n",budget="node"} 200x60`,
	},
	"MetsukeRetentionStuck": {
		`metsuke_retention_ended_timestamp_seconds{instance="n"} 0x120`,
		`metsuke_retention_ended_timestamp_seconds{instance="n"} 0+60x120`,
	},
	"MetsukeRetentionProblems": {
		`metsuke_retention_problems_total{instance="n"} 0+1x60`,
		`metsuke_retention_problems_total{instance="n"} 7x60`,
	},
}

// ends are the times of alerts that look back, or wait, for longer.
var ends = map[string]time.Duration{"MetsukeDenialsSpike": 25 * time.Hour, "MetsukeProfileOutdated": 3 * time.Hour, "MetsukeRetentionStuck": 2 * time.Hour}

// slow is starts of which one phase takes five seconds.
func slow(phase string) string {
	s := ""
	for le, step := range map[string]int{"2.5": 0, "5": 1, "10": 1, "+Inf": 1} {
		s += fmt.Sprintf("metsuke_container_start_seconds_bucket{instance=\"n\",handler=\"h\",phase=%q,le=%q} 0+%dx60\n", phase, le, step)
	}
	return s
}

func rules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alerts, false, model.LegacyValidation, promql, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	all := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if _, twice := all[r.Alert]; twice || r.Alert == "" {
				t.Errorf("group %s: rule %q is there twice, or is no alert", g.Name, r.Alert)
			}
			all[r.Alert] = r
		}
	}
	return all
}

// Alerts name what there is, say what to do, and fire when they are to, and only then.
func TestAlerts(t *testing.T) {
	known, all := metrics(t), rules(t)
	for name := range cases {
		if _, ok := all[name]; !ok {
			t.Errorf("there is no alert %s", name)
		}
	}
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			check(t, known, name, r.Expr)
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("labels %v, annotations %v", r.Labels, r.Annotations)
			}
			c, ok := cases[name]
			if !ok {
				t.Fatal("it has no test")
			}
			got := evaluate(t, r, c.fires)
			if len(got) == 0 {
				t.Error("it does not fire")
			}
			if silent := evaluate(t, r, c.silent); len(silent) > 0 {
				t.Errorf("it fires: %v", silent)
			}
			for _, sample := range got {
				for _, text := range r.Annotations {
					for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
						if sample.Metric.Get(m[1]) == "" {
							t.Errorf("%q: the alert has no label %s", text, m[1])
						}
					}
				}
			}
		})
	}
}

// evaluate returns the samples that make a rule fire at the end of the series, as Prometheus would with an evaluation a minute: they
// are there at each of them for as long as the rule waits.
func evaluate(t *testing.T, r rulefmt.Rule, series string) engine.Vector {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n"+indent(series))
	defer storage.Close()
	run := promqltest.NewTestEngine(t, false, 0, 100_000)
	end := time.Unix(0, 0).Add(cmp.Or(ends[r.Alert], time.Hour))
	var last engine.Vector
	for at := end.Add(-time.Duration(r.For)); !at.After(end); at = at.Add(time.Minute) {
		query, err := run.NewInstantQuery(context.Background(), storage, nil, r.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		result := query.Exec(context.Background())
		vector, err := result.Vector()
		if err != nil {
			t.Fatal(err)
		}
		last = slices.Clone(vector)
		query.Close()
		if len(last) == 0 {
			return nil
		}
	}
	return last
}

func indent(series string) string {
	return "  " + regexp.MustCompile(`\n\s*`).ReplaceAllString(series, "\n  ")
}
