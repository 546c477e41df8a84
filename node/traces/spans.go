// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// maxStart is the longest time that a start may have taken to be believed.
const maxStart = 24 * time.Hour

// Attributes for which OpenTelemetry has no convention.
const (
	keyProfile   = attribute.Key("metsuke.profile")
	keyDigest    = attribute.Key("metsuke.profile.digest")
	keyHandler   = attribute.Key("metsuke.handler")
	keyDelegate  = attribute.Key("metsuke.delegate")
	keyPlacement = attribute.Key("metsuke.placement")
)

// span is one span.
type span struct {
	name       string
	id         trace.SpanID
	begin, end time.Time
	attributes []attribute.KeyValue
}

// started is the start of one container as spans.
type started struct {
	caller trace.SpanContext // the span that the start belongs to; not valid: the caller told none
	trace  trace.TraceID     // that it belongs to then
	whole  span
	laps   []span // within whole
}

// read makes spans of the record of a start. ok is false if it is not one, or tells nothing that can be.
func read(handler string, r *record.Record) (s started, ok bool) {
	t := r.Event.Timing
	if t == nil || len(t.Laps) == 0 || len(t.Laps) > audit.MaxLaps {
		return started{}, false
	}
	who := instance{r.Identity.ContainerID, t.Began}
	s = started{caller: caller(t.Traceparent), trace: ofSandbox(t.SandboxID)}
	s.whole = span{name: "start container", id: who.whole(), begin: t.Began, end: t.Began, attributes: attributes(handler, &r.Identity, t)}
	for i, l := range t.Laps {
		if l.Offset < 0 || l.Duration < 0 || l.Offset > maxStart || l.Duration > maxStart {
			return started{}, false
		}
		lap := span{name: text(l.Phase), id: who.lap(i), begin: t.Began.Add(l.Offset)}
		lap.end = lap.begin.Add(l.Duration)
		if lap.end.After(s.whole.end) {
			s.whole.end = lap.end
		}
		s.laps = append(s.laps, lap)
	}
	return s, true
}

// caller reads a traceparent.
func caller(traceparent string) trace.SpanContext {
	carrier := propagation.MapCarrier{"traceparent": traceparent}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// attributes tells of the container. What is not known is left out.
func attributes(handler string, id *audit.Identity, t *audit.Timing) []attribute.KeyValue {
	image, tag := splitImage(t.Image)
	all := []attribute.KeyValue{
		semconv.K8SNamespaceName(text(id.Namespace)), semconv.K8SPodName(text(id.Pod)), semconv.K8SPodUID(text(id.PodUID)),
		semconv.K8SContainerName(text(id.Container)), semconv.ContainerID(text(id.ContainerID)), semconv.ContainerImageName(text(image)),
		keyProfile.String(text(id.Profile)), keyDigest.String(text(id.ProfileDigest)), keyHandler.String(text(handler)),
		keyDelegate.String(text(t.Delegate)), keyPlacement.String(text(t.Placement)),
	}
	all = slices.DeleteFunc(all, func(a attribute.KeyValue) bool { return a.Value.AsString() == "" })
	if tag != "" {
		all = append(all, semconv.ContainerImageTags(text(tag)))
	}
	return all
}

// splitImage cuts an image's reference in two, as the conventions have it: its name, and its tag. A digest is in neither.
func splitImage(reference string) (name, tag string) {
	name, _, _ = strings.Cut(reference, "@")
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		return name[:at], name[at+1:]
	}
	return name, ""
}

// text is a string as it can be sent: one that is not UTF-8 would cost all spans that are sent with it.
func text(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
