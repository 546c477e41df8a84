// SPDX-License-Identifier: Apache-2.0

// Package metrics shows Prometheus what a node's shims count, and how the node's agent fares.
//
// Shims are asked every [Interval], and what they say is added up here, by profile and handler and never by pod. Each record of a stream
// is counted once: from its shim's counters while that answers, and otherwise from the stream, from the place on where the shim's
// counting ended. So what a pod counted last is not lost with it, nor what a container did that was never seen. Counters begin with the
// agent: what came before is in no counter.
//
// A guest that was taken over can name rules as it likes: only names that a profile has are shown, and each family's series are bounded.
package metrics

import (
	"context"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/retention"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/shim/status"
)

// Interval is how often the shims are asked.
const Interval = 10 * time.Second

// Metrics are those of one node. Scrapes are answered from memory.
type Metrics struct {
	*exposition.Registry
	root string
	now  func() time.Time

	pods, containers, outdated, oldest *exposition.Gauge
	changed, polled, behind            *exposition.Gauge

	records, calls, denials, losses, missing, clamped *exposition.Counter
	ooms, execs, stalls, starts, failed, unreadable   *exposition.Counter
	phases                                            *exposition.Histogram
	spans                                             *exposition.Counter

	kept, largest, budgets, waiting, retained *exposition.Gauge
	removed, saved, problems                  *exposition.Counter

	handlers, refused, reported, synced *exposition.Gauge
	reportFailures                      *exposition.Counter

	known   names
	follow  follower
	started map[string][]status.Phase  // by the pod's directory: what was counted of it; of Poll alone
	rounds  map[string]retention.Total // by directory of streams: what retention had done by the last Poll
	began   time.Time                  // of the first Poll
}

// New returns the metrics of the node whose root directory is mounted at root. Nothing is asked before Run.
func New(root, version string) *Metrics {
	r := exposition.New(version)
	m := &Metrics{Registry: r, root: root, now: time.Now, started: map[string][]status.Phase{}}
	m.follow = follower{root: root, add: m.count, show: m.known.show}

	m.pods = r.Gauge("metsuke_pods", "Pods under Metsuke, by what became of their shim (`running`, `unreachable`, `dead`). A pod counts once for each profile of its containers.", "handler", "profile", "state")
	m.containers = r.Gauge("metsuke_containers", "Containers under Metsuke; the placement is that of their supervisor, empty under passthrough.", "handler", "profile", "placement")
	m.outdated = r.Gauge("metsuke_outdated_containers", "Containers that would get another profile, another version of it, or none, if they were created now.", "handler", "profile")
	m.oldest = r.Gauge("metsuke_outdated_container_created_timestamp_seconds", "When the oldest of those containers was created: so long its profile may have been out of date. Absent if there is none.", "handler", "profile")
	m.changed = r.Gauge("metsuke_profiles_changed_timestamp_seconds", "When the files of the node's profile directory last changed.")
	m.polled = r.Gauge("metsuke_shims_polled_timestamp_seconds", "When the node's shims were last asked.")
	m.behind = r.Gauge("metsuke_streams_behind", "Streams whose end is not counted yet, because there is much of it.")

	m.starts = r.Counter("metsuke_container_starts_total", "Containers whose filter and limits were found in force, by the receipt in their stream.", "handler", "profile")
	m.failed = r.Counter("metsuke_container_start_failures_total", "Starts that failed, by the phase that they failed in. Of a pod that never came to be nobody is left to tell: kubelet's events do.", "handler", "phase")
	m.phases = r.Histogram("metsuke_container_start_seconds", "How long each phase of a container's start took: `resolve`, `rewrite`, `delegate` (its own Create and Start), `armed`. Of pods that live for less than an interval some are missing.", status.PhaseBounds(), "handler", "phase")

	m.records = r.Counter("metsuke_audit_records_total", "Records in streams.", "handler", "profile")
	m.calls = r.Counter("metsuke_audited_calls_total", "System calls that have a record, alone or folded; the class is empty for a denial outside all classes.", "handler", "profile", "class", "verdict")
	m.denials = r.Counter("metsuke_denials_total", "System calls that were denied or killed, by the profile whose rule it was (`pod`: the pod's own seccomp profile) and the rule's id (empty: its default).", "handler", "profile", "origin", "rule")
	m.stalls = r.Counter("metsuke_stalls_total", "Audited calls that had to wait because their stream could not be written. They are in no stream: those of a pod's last interval are not counted.", "handler", "profile")
	m.losses = r.Counter("metsuke_losses_total", "Losses on record, by reason (docs/events.md).", "handler", "profile", "reason")
	m.missing = r.Counter("metsuke_lost_events_total", "Events that are missing in streams because of them, as far as known.", "handler", "profile", "reason")
	m.clamped = r.Counter("metsuke_clamped_limits_total", "Requests for a resource that were lowered to the profile's ceiling.", "handler", "profile", "resource")
	m.ooms = r.Counter("metsuke_oom_kills_total", "Processes that the kernel killed for want of memory, at least.", "handler", "profile")
	m.execs = r.Counter("metsuke_exec_sessions_total", "Exec sessions that began.", "handler", "profile")
	m.unreadable = r.Counter("metsuke_stream_damages_total", "Places in streams that could not be read while they were counted.", "handler")

	m.spans = r.Counter("metsuke_spans_total", "Spans of container starts, by what became of them: `sent`, or `failed` (the collector did not take them). None without traces.", "outcome")

	m.kept = r.Gauge("metsuke_audit_bytes", "Bytes that streams take on the disk, as the last round of retention found them. Absent where none runs, as all of retention is.")
	m.largest = r.Gauge("metsuke_audit_largest_pod_bytes", "And those of the pod that has most.")
	m.budgets = r.Gauge("metsuke_audit_budget_bytes", "What they may take, of the `pod` or the `node`; the least, where configurations differ. Absent without a budget.", "budget")
	m.waiting = r.Gauge("metsuke_retention_backlog_bytes", "Bytes that are beyond the limits of retention, and wait for sinks to confirm them.")
	m.retained = r.Gauge("metsuke_retention_ended_timestamp_seconds", "When the last round of retention ended.")
	m.removed = r.Counter("metsuke_retention_removed_bytes_total", "Bytes of streams that were removed.")
	m.saved = r.Counter("metsuke_retention_saved_bytes_total", "Bytes that compression has saved.")
	m.problems = r.Counter("metsuke_retention_problems_total", "What rounds of retention could not do: streams that are not as they were signed, for one. Their log says it.")

	m.handlers = r.Gauge("metsuke_handler_ready", "Whether the doctor finds a handler ready for pods (1) or not (0).", "handler")
	m.refused = r.Gauge("metsuke_profiles_refused", "Whether the node refuses the cluster's profiles (1), and keeps the last set that was good.")
	m.synced = r.Gauge("metsuke_profiles_applied_timestamp_seconds", "When the cluster's profiles were last put in force, or found to be.")
	m.reported = r.Gauge("metsuke_apiserver_answered_timestamp_seconds", "When the API server last took the node's report. The agent reports every five minutes and with each change.")
	m.reportFailures = r.Counter("metsuke_apiserver_failures_total", "Reports that the API server did not take.")
	return m
}

// TellStarts has tell called for the record of each start (its event is of kind timing) once, with the handler that it was under. That of a
// container that runs already is told too: how old it may be is for tell to judge. It is called by Poll's goroutine, which waits for it.
// TellStarts is to be called before the first Poll.
func (m *Metrics) TellStarts(tell func(handler string, r *record.Record)) { m.follow.tell = tell }

// Spans adds to what became of spans. It is safe for concurrent use.
func (m *Metrics) Spans(sent, failed int) {
	m.spans.Add(uint64(sent), "sent")
	m.spans.Add(uint64(failed), "failed")
}

// Run asks the shims until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		if err := m.Poll(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("not everything could be counted")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Report is what the node's agent knows.
type Report struct {
	Ready   map[string]bool // by handler; nil: the doctor was not asked yet
	Refused bool            // the profiles of the cluster
	Applied time.Time       // when they were last put in force; zero: never
	Failed  bool            // the API server did not take the report
	Told    bool            // it did
}

// Report takes in what the agent knows.
func (m *Metrics) Report(r Report) {
	ready := []exposition.Sample{}
	for handler, is := range r.Ready {
		ready = append(ready, exposition.Sample{Value: number(is), Labels: []string{handler}})
	}
	m.handlers.Replace(ready...)
	m.refused.Set(number(r.Refused))
	if !r.Applied.IsZero() {
		m.synced.Set(seconds(r.Applied))
	}
	failures := uint64(0)
	if r.Failed {
		failures = 1
	}
	m.reportFailures.Add(failures)
	if r.Told {
		m.reported.Set(seconds(m.now()))
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
