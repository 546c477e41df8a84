// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
)

// counters are what the programs have counted, and used, since they started.
type counters struct {
	apiserver, controller *process // whose they are

	APIServerCPU  float64 `json:"apiserverCPU"`  // seconds
	EtcdCPU       float64 `json:"etcdCPU"`       // seconds
	ControllerCPU float64 `json:"controllerCPU"` // seconds
	AgentsCPU     float64 `json:"agentsCPU"`     // seconds; of this process

	Requests    map[string]float64 `json:"requests"`    // of Metsuke's resources and nodes, by "VERB resource"
	Rejected    float64            `json:"rejected"`    // answered 429
	WatchEvents float64            `json:"watchEvents"` // of AcceptedDocuments, sent to all watchers, with bookmarks
	WatchBytes  float64            `json:"watchBytes"`  // their size
	Received    float64            `json:"received"`    // bytes that reached agents, with HTTP/2 and TLS
	Sent        float64            `json:"sent"`        // bytes that agents sent
	EtcdPuts    float64            `json:"etcdPuts"`
}

// sub is what was counted since an earlier moment.
func (c counters) sub(o counters) counters {
	if c.controller != o.controller {
		o.ControllerCPU = 0
	}
	if c.apiserver != o.apiserver {
		o.APIServerCPU, o.Requests, o.Rejected, o.WatchEvents, o.WatchBytes = 0, nil, 0, 0, 0
	}
	d := counters{
		APIServerCPU: c.APIServerCPU - o.APIServerCPU, EtcdCPU: c.EtcdCPU - o.EtcdCPU, ControllerCPU: c.ControllerCPU - o.ControllerCPU,
		AgentsCPU: c.AgentsCPU - o.AgentsCPU, Rejected: c.Rejected - o.Rejected, WatchEvents: c.WatchEvents - o.WatchEvents,
		WatchBytes: c.WatchBytes - o.WatchBytes, Received: c.Received - o.Received, Sent: c.Sent - o.Sent, EtcdPuts: c.EtcdPuts - o.EtcdPuts,
		Requests: map[string]float64{},
	}
	for name, n := range c.Requests {
		if n -= o.Requests[name]; n > 0 {
			d.Requests[name] = n
		}
	}
	return d
}

// count reads all counters.
func (f *fleet) count(ctx context.Context) (c counters, err error) {
	p := f.plane
	c.apiserver, c.controller = p.apiserver, p.controller
	for process, cpu := range map[*process]*float64{p.apiserver: &c.APIServerCPU, p.etcd: &c.EtcdCPU, p.controller: &c.ControllerCPU} {
		if *cpu, err = process.cpu(); err != nil {
			return c, err
		}
	}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return c, err
	}
	c.AgentsCPU = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	c.Received, c.Sent = float64(f.received.Load()), float64(f.sent.Load())

	text, err := p.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return c, fmt.Errorf("metrics of the API server: %w", err)
	}
	if err := c.fromAPIServer(text); err != nil {
		return c, err
	}
	text, err = fetch(ctx, p.etcdURL+"/metrics")
	if err != nil {
		return c, fmt.Errorf("metrics of etcd: %w", err)
	}
	families, err := parse(text)
	if err != nil {
		return c, err
	}
	for _, m := range families["etcd_mvcc_put_total"] {
		c.EtcdPuts += m.value
	}
	return c, nil
}

// ours are the resources whose requests count.
var ours = map[string]bool{"agentprofiles": true, "profilebindings": true, "accepteddocuments": true, "agentnodes": true, "nodes": true}

func (c *counters) fromAPIServer(text []byte) error {
	families, err := parse(text)
	if err != nil {
		return err
	}
	c.Requests = map[string]float64{}
	for _, m := range families["apiserver_request_total"] {
		if ours[m.labels["resource"]] {
			c.Requests[m.labels["verb"]+" "+m.labels["resource"]] += m.value
		}
		if m.labels["code"] == "429" {
			c.Rejected += m.value
		}
	}
	for _, m := range families["apiserver_watch_events_total"] {
		if m.of("AcceptedDocument", "accepteddocuments") {
			c.WatchEvents += m.value
		}
	}
	for _, m := range families["apiserver_watch_events_sizes"] {
		if m.of("AcceptedDocument", "accepteddocuments") {
			c.WatchBytes += m.value
		}
	}
	return nil
}

// metric is one line of a family; of a histogram, the sum.
type metric struct {
	labels map[string]string
	value  float64
}

// of tells whether the line is about a kind. The API server names kinds in some versions, and resources in others.
func (m metric) of(kind, resource string) bool {
	return m.labels["kind"] == kind || m.labels["resource"] == resource
}

func parse(text []byte) (map[string][]metric, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	out := map[string][]metric{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
			out[name] = append(out[name], metric{labels, value})
		}
	}
	return out, nil
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}
