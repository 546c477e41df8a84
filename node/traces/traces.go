// SPDX-License-Identifier: Apache-2.0

// Package traces shows an OpenTelemetry collector how containers start: a span for each start, and one in it for each phase.
//
// Nothing is measured here. Shims, which reach no network, record how long a start took (package audit, KindTiming); the node's agent
// reads these records for its metrics anyway, and has them turned into spans here. What the same record becomes is always the same, its
// ids too, so a span that is sent again, by an agent that was restarted, is no other.
//
// Whether, where and how spans are sent is what the environment says, by OpenTelemetry's own variables. Nobody waits for the collector:
// spans wait in a queue, and those that find it full are dropped.
package traces

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"
	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"metsuke.dev/metsuke/audit/record"
)

// Before is how long before an agent a start may have ended to be told: one that was under way, or had just ended, when the agent was
// replaced. With no bound an agent that is restarted would send all of its node's starts again.
const Before = time.Minute

// endTimeout bounds how long the end waits for the collector.
const endTimeout = 5 * time.Second

// scope names who made the spans, as OpenTelemetry wants it.
const scope = "metsuke.dev/metsuke/node/traces"

// Config says whose spans they are.
type Config struct {
	Node    string    // the node's name in the cluster
	Version string    // of Metsuke
	Since   time.Time // starts that ended before are not told
	// Sent is told what became of spans: how many the collector took, and how many not. nil: nobody is told. It must not block.
	Sent func(sent, failed int)
}

// Traces sends spans. Its methods are safe for concurrent use.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	since    time.Time     // starts that ended before are not told
	patience time.Duration // with the collector, at the end
}

// New returns nil if the environment does not ask for traces (OTEL_TRACES_EXPORTER is not "otlp", or OTEL_SDK_DISABLED is "true"):
// nothing of OpenTelemetry runs then. It does not connect: a collector that is not there is no error. An exporter, a protocol, an endpoint
// and headers that are not valid are one, which has nothing of the headers in it.
// The process must have one Traces at most.
func New(ctx context.Context, c Config) (*Traces, error) {
	on, err := wanted()
	if err != nil || !on {
		return nil, err
	}
	secrets, err := headers()
	if err := errors.Join(err, checkEndpoints()); err != nil {
		return nil, err
	}
	said := &complaints{secrets: secrets}
	// OpenTelemetry's own log would have settings that it cannot read as they are, headers among them.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(said.about))
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	of, err := describe(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	to := &sender{SpanExporter: exporter, sent: c.Sent, complaints: said}
	return start(c, sdktrace.WithBatcher(to), sdktrace.WithResource(of)), nil
}

// describe says what the spans are of. What the environment says counts.
func describe(ctx context.Context, c Config) (*resource.Resource, error) {
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName("metsuke"), semconv.ServiceVersion(c.Version), semconv.K8SNodeName(c.Node),
	), resource.WithFromEnv())
}

func start(c Config, options ...sdktrace.TracerProviderOption) *Traces {
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithIDGenerator(given{}))...)
	return &Traces{
		provider: provider, since: c.Since, patience: endTimeout,
		tracer: provider.Tracer(scope, trace.WithInstrumentationVersion(c.Version), trace.WithSchemaURL(semconv.SchemaURL)),
	}
}

// Started makes spans of the record of a start. It does not block. Starts that ended before Config.Since make none, nor do those whose
// caller's trace is not sampled.
func (t *Traces) Started(handler string, r *record.Record) {
	s, ok := read(handler, r)
	if !ok || r.Event.Time.Before(t.since) {
		return
	}
	ctx := context.Background()
	if s.caller.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, s.caller)
	}
	ctx, whole := t.begin(ctx, s.trace, s.whole)
	for _, lap := range s.laps {
		_, span := t.begin(ctx, s.trace, lap)
		span.End(trace.WithTimestamp(lap.end))
	}
	whole.End(trace.WithTimestamp(s.whole.end))
}

func (t *Traces) begin(ctx context.Context, in trace.TraceID, s span) (context.Context, trace.Span) {
	return t.tracer.Start(give(ctx, in, s.id), s.name, trace.WithTimestamp(s.begin), trace.WithAttributes(s.attributes...))
}

// Close sends what is left, and blocks for endTimeout at most. Spans that come later are dropped.
func (t *Traces) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), t.patience)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.L.WithError(err).Warn("the last spans were not sent")
	}
}
