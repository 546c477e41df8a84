// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// ofSandbox is the trace of the starts of a pod's containers.
func ofSandbox(id string) (t trace.TraceID) {
	copy(t[:], hash("trace", id))
	return t
}

// instance is one start: an id may be used again once its container is gone.
type instance struct {
	container string
	began     time.Time
}

func (i instance) whole() trace.SpanID { return i.span("start") }

func (i instance) lap(n int) trace.SpanID { return i.span(fmt.Sprint("lap ", n)) }

func (i instance) span(name string) (s trace.SpanID) {
	copy(s[:], hash("span", i.container, fmt.Sprint(i.began.UnixNano()), name))
	return s
}

// hash is the same for the same words, and for no others.
func hash(words ...string) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", words))
	return sum[:]
}

// given makes no ids of its own: it takes those that are in the context.
type given struct{}

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// give puts the ids of the span that is to be started into the context. That of its trace counts if the span has no parent.
func give(ctx context.Context, in trace.TraceID, id trace.SpanID) context.Context {
	return context.WithValue(ctx, idsKey{}, ids{in, id})
}

// NewIDs implements sdktrace.IDGenerator.
func (given) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.trace, i.span
}

// NewSpanID implements sdktrace.IDGenerator.
func (g given) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, id := g.NewIDs(ctx)
	return id
}
