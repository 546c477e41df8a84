// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/google/go-cmp/cmp"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/audit/record"
)

// received is what came to a collector.
type received struct {
	coltracepb.UnimplementedTraceServiceServer

	mu       sync.Mutex
	requests []*coltracepb.ExportTraceServiceRequest
	tokens   []string // of their headers
}

func (r *received) take(req *coltracepb.ExportTraceServiceRequest, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.tokens = append(r.requests, req), append(r.tokens, token)
}

// all is what came, and with which tokens.
func (r *received) all() ([]*coltracepb.ExportTraceServiceRequest, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests, r.tokens
}

// Export implements the service for gRPC.
func (r *received) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.take(req, strings.Join(md.Get("x-token"), "|"))
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is the same for HTTP.
func (r *received) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	req := &coltracepb.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, req)
	}
	if err != nil || in.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(in.URL, err), http.StatusBadRequest)
		return
	}
	r.take(req, in.Header.Get("x-token"))
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// collect starts a collector for a protocol, and has the environment lead to it.
func collect(t *testing.T, protocol string) *received {
	t.Helper()
	r := &received{}
	var address string
	switch protocol {
	case protocolHTTP:
		server := httptest.NewServer(r)
		t.Cleanup(server.Close)
		address = server.URL
	case protocolGRPC:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		coltracepb.RegisterTraceServiceServer(server, r)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		address = "http://" + l.Addr().String()
	}
	clearEnv(t)
	t.Setenv(envExporter, exporterOTLP)
	t.Setenv(envProtocol, protocol)
	t.Setenv(envEndpoint, address)
	t.Setenv(envHeaders, "x-token=c0ffee%20c0ffee")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000") // ms: nothing is sent before a batch is full, or the end
	return r
}

// tally counts what is told of spans.
type tally struct {
	mu           sync.Mutex
	sent, failed int
}

func (c *tally) add(sent, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent, c.failed = c.sent+sent, c.failed+failed
}

func values(attributes []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.Key] = a.Value.GetStringValue()
	}
	return all
}

// What a collector is sent, by each of the protocols. Strings that are not valid cost no span.
func TestCollector(t *testing.T) {
	for _, protocol := range []string{protocolHTTP, protocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			collector := collect(t, protocol)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=c1")
			var counts tally
			traces, err := New(t.Context(), Config{Node: "node-1", Version: "v1", Sent: counts.add})
			if err != nil {
				t.Fatal(err)
			}
			traces.Started("metsuke-runc", timed(nil))
			traces.Started("metsuke-runc", timed(func(r *record.Record) {
				r.Identity.ContainerID, r.Identity.Pod, r.Event.Timing.Image, r.Event.Timing.Laps[0].Phase = "\xff", "\xff\x1b[2J", "\xff:\xff", "\xff"
			}))
			traces.Close()
			requests, tokens := collector.all()
			if counts.sent != 8 || counts.failed != 0 || len(requests) != 1 || tokens[0] != "c0ffee c0ffee" {
				t.Fatalf("sent %d, failed %d, %d requests with %q", counts.sent, counts.failed, len(requests), tokens)
			}
			of := requests[0].ResourceSpans[0]
			about := values(of.Resource.Attributes)
			for key, want := range map[string]string{"service.name": "metsuke", "service.version": "v1", "k8s.node.name": "node-1", "k8s.cluster.name": "c1"} {
				if about[key] != want {
					t.Errorf("%s is %q", key, about[key])
				}
			}
			var spans []*tracepb.Span
			for _, s := range of.ScopeSpans {
				spans = append(spans, s.Spans...)
			}
			var names []string
			for _, s := range spans {
				names = append(names, s.Name)
			}
			if diff := cmp.Diff([]string{"resolve", "delegate", "armed", "start container", "\ufffd", "delegate", "armed", "start container"}, names); diff != "" {
				t.Fatal(diff)
			}
			whole := spans[3]
			if hex.EncodeToString(whole.SpanId) != "c52ff71b7a85e8fd" || !bytes.Equal(spans[0].ParentSpanId, whole.SpanId) || len(whole.ParentSpanId) != 0 ||
				whole.StartTimeUnixNano != uint64(began.UnixNano()) || whole.EndTimeUnixNano != uint64(began.Add(912*time.Millisecond).UnixNano()) {
				t.Errorf("%v", whole)
			}
			if about := values(spans[7].Attributes); about["k8s.pod.name"] != "\ufffd\x1b[2J" || about["container.id"] != "\ufffd" {
				t.Errorf("%q", about)
			}
		})
	}
}

// logged has the log written into the result.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	log.L.Logger.SetOutput(&out)
	t.Cleanup(func() { log.L.Logger.SetOutput(os.Stderr) })
	return &out
}

// What a collector does not take is counted, and said without what is secret.
func TestCollectorRefuses(t *testing.T) {
	collect(t, protocolHTTP)
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		http.Error(w, "who is "+in.Header.Get("x-token"), http.StatusUnauthorized)
	}))
	defer refuses.Close()
	t.Setenv(envEndpoint, refuses.URL)
	out := logged(t)
	var counts tally
	traces, err := New(t.Context(), Config{Sent: counts.add})
	if err != nil {
		t.Fatal(err)
	}
	traces.Started("metsuke-runc", timed(nil))
	traces.Close()
	if counts.sent != 0 || counts.failed != 4 || !strings.Contains(out.String(), "401") || strings.Contains(out.String(), "c0ffee") {
		t.Errorf("sent %d, failed %d: %s", counts.sent, counts.failed, out)
	}
}

// A collector that is there and says nothing holds up nobody: neither those who tell of starts, however many, nor the end.
func TestCollectorHangs(t *testing.T) {
	collect(t, protocolHTTP)
	asked, hang := make(chan struct{}, 100), make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-hang
	}))
	defer hangs.Close()
	defer close(hang)
	t.Setenv(envEndpoint, hangs.URL)
	logged(t)
	traces, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	traces.patience = 50 * time.Millisecond
	for i := range 5000 { // the queue has room for 2048 spans
		traces.Started("metsuke-runc", timed(func(r *record.Record) { r.Identity.ContainerID = fmt.Sprint(i) }))
	}
	<-asked // by the first 512 of them
	traces.Started("metsuke-runc", timed(nil))
	traces.Close()
}
