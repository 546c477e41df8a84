// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// sender sends spans, and tells what became of them.
type sender struct {
	sdktrace.SpanExporter
	sent       func(sent, failed int)
	complaints *complaints
}

// ExportSpans implements sdktrace.SpanExporter. What fails is said here, and no error to the SDK.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	sent, failed := len(spans), 0
	if err := s.SpanExporter.ExportSpans(ctx, spans); err != nil {
		sent, failed = 0, len(spans)
		s.complaints.about(err)
	}
	if s.sent != nil {
		s.sent(sent, failed)
	}
	return nil
}

// Bounds of what is said of failures.
const (
	silence     = time.Minute // between two
	maxComplain = 512         // bytes of an error, which a collector may have worded
)

// complaints says in the log what is wrong with traces. Its methods are safe for concurrent use.
type complaints struct {
	secrets []string

	mu   sync.Mutex
	last time.Time // guarded by mu
}

// about says what the error is, unless something was said a moment ago.
func (c *complaints) about(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.last) >= silence {
		c.last = now
		log.L.WithField("error", c.clean(err.Error())).Warn("traces may be incomplete")
	}
}

// clean takes out of a text what may be secret: collectors repeat what they were sent.
func (c *complaints) clean(text string) string {
	longestFirst := slices.SortedFunc(slices.Values(c.secrets), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, secret := range longestFirst {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return strings.ToValidUTF8(text[:min(len(text), maxComplain)], "")
}
