// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otellog "go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/sink"
)

const (
	scope = "metsuke.dev/metsuke/audit/sink/otlp"
	// maxLoggers bounds for how many containers a logger is kept.
	maxLoggers = 512
)

// records makes log records. It is for one goroutine.
type records struct {
	version string
	loggers map[container]otellog.Logger
	made    []sdklog.Record
}

// container is what a resource is made of.
type container struct{ node, namespace, pod, podUID, name string }

func newRecords(version string) *records {
	return &records{version: version, loggers: map[container]otellog.Logger{}}
}

// of returns the log records of a batch. They are valid until the next call.
func (r *records) of(ctx context.Context, batch []sink.Record) []sdklog.Record {
	clear(r.made)
	r.made = r.made[:0]
	for i := range batch {
		r.logger(batch[i].Identity).Emit(ctx, logRecord(&batch[i]))
	}
	return r.made
}

// logger returns the one whose resource is the container that an identity is of.
func (r *records) logger(id *audit.Identity) otellog.Logger {
	of := container{id.Node, id.Namespace, id.Pod, id.PodUID, id.Container}
	if l, ok := r.loggers[of]; ok {
		return l
	}
	if len(r.loggers) >= maxLoggers {
		clear(r.loggers)
	}
	attributes := []attribute.KeyValue{semconv.ServiceName("metsuke"), semconv.ServiceVersion(r.version), semconv.K8SNodeName(text(id.Node))}
	if id.Pod != "" { // otherwise it is about the node
		attributes = append(attributes, semconv.K8SNamespaceName(text(id.Namespace)), semconv.K8SPodName(text(id.Pod)),
			semconv.K8SPodUID(text(id.PodUID)), semconv.K8SContainerName(text(id.Container)))
	}
	l := sdklog.NewLoggerProvider(
		sdklog.WithResource(resource.NewWithAttributes(semconv.SchemaURL, attributes...)), sdklog.WithProcessor(r),
		sdklog.WithAttributeCountLimit(-1), sdklog.WithAttributeValueLengthLimit(-1), sdklog.WithAllowKeyDuplication(), // there are none, and looking costs
	).Logger(scope, otellog.WithInstrumentationVersion(r.version), otellog.WithSchemaURL(semconv.SchemaURL))
	r.loggers[of] = l
	return l
}

// logRecord returns what is emitted for a record.
func logRecord(r *sink.Record) (out otellog.Record) {
	severity := severityOf(r)
	out.SetTimestamp(r.Time)
	out.SetSeverity(severity)
	out.SetSeverityText(severity.String())
	out.SetEventName("metsuke." + text(string(r.Kind)))
	out.SetBody(attribute.StringValue(string(r.Line)))
	out.AddAttributes(semconv.LogRecordUID(r.ID), attribute.String("metsuke.kind", text(string(r.Kind))))
	if r.Stream != "" {
		out.AddAttributes(attribute.String("metsuke.stream", text(r.Stream)))
	}
	if r.Seq > 0 {
		out.AddAttributes(attribute.Int64("metsuke.seq", int64(r.Seq)), semconv.ContainerID(text(r.Identity.ContainerID)),
			attribute.String("metsuke.profile", text(r.Identity.Profile)))
	}
	if r.Verdict != "" {
		out.AddAttributes(attribute.String("metsuke.verdict", text(string(r.Verdict))))
	}
	return out
}

// text is a string as protobuf takes it. Lines are valid anyway.
func text(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func severityOf(r *sink.Record) otellog.Severity {
	switch {
	case r.Verdict == audit.VerdictKilled, r.Kind == audit.KindLoss, r.Kind == sink.KindGap:
		return otellog.SeverityError
	case r.Verdict == audit.VerdictDenied, r.Kind == audit.KindOOM:
		return otellog.SeverityWarn
	}
	return otellog.SeverityInfo
}

// OnEmit implements sdklog.Processor: it collects.
func (r *records) OnEmit(_ context.Context, record *sdklog.Record) error {
	r.made = append(r.made, record.Clone())
	return nil
}

// Enabled implements sdklog.Processor.
func (r *records) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

// Shutdown implements sdklog.Processor.
func (r *records) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdklog.Processor.
func (r *records) ForceFlush(context.Context) error { return nil }
