// SPDX-License-Identifier: Apache-2.0

// Package otlp ships records to an OpenTelemetry collector, or whoever else speaks OTLP, as log records, by the exporters of OpenTelemetry's SDK.
//
// What the far side answers is looked at on its way to the exporter, which tells a rejected record from a warning by words alone, and an HTTP status not at
// all. Nothing is tried again here: the shipper does that.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	sdklog "go.opentelemetry.io/otel/sdk/log"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

// Sink implements sink.Sink.
type Sink struct {
	exporter sdklog.Exporter
	records  *records
	answers  *answers
	empty    func(context.Context) error // sends an empty request
	end      func() error                // closes the connection
}

// New returns a sink for a collector. It does not connect. The error has no secrets in it.
func New(ctx context.Context, c *config.Sink, version string) (*Sink, error) {
	s := &Sink{records: newRecords(version), answers: &answers{headersFile: c.OTLP.Headers}}
	var err error
	if c.OTLP.Protocol == config.ProtocolHTTP {
		err = s.overHTTP(ctx, c)
	} else {
		err = s.overGRPC(ctx, c, version)
	}
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter: %w", err)
	}
	return s, nil
}

// Send implements sink.Sink. A collector that accepts a request has it in its queue, or has handed it on: that is its own configuration's to say.
func (s *Sink) Send(ctx context.Context, batch []sink.Record) error {
	s.answers.forget()
	err := s.exporter.Export(ctx, s.records.of(ctx, batch))
	return s.answers.judge(err)
}

// Check implements sink.Sink: an empty request is valid, and stores nothing.
func (s *Sink) Check(ctx context.Context) error {
	s.answers.forget()
	return s.answers.judge(s.empty(ctx))
}

// Close implements sink.Sink.
func (s *Sink) Close(ctx context.Context) error {
	return errors.Join(s.exporter.Shutdown(ctx), s.end())
}

// answers is what the far side said to the last request. Its methods are safe for concurrent use.
type answers struct {
	headersFile string // "" for none

	mu       sync.Mutex
	secrets  []string // guarded by mu, as all below: values of the headers that were sent
	accepted bool
	rejected int64  // records, of an accepted request
	said     string // about them
	status   int    // of HTTP; 0: none
}

func (a *answers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted, a.rejected, a.said, a.status = false, 0, "", 0
}

// accept notes that the far side has accepted a request, but for so many records.
func (a *answers) accept(rejected int64, said string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted, a.rejected, a.said = true, rejected, said
}

// headers reads the file of headers, as it is now.
func (a *answers) headers() (map[string]string, error) {
	if a.headersFile == "" {
		return nil, nil
	}
	all, err := credentials.Headers(a.headersFile)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets = a.secrets[:0]
	for _, value := range all {
		a.secrets = append(a.secrets, value)
	}
	return all, nil
}

// judge says what an attempt came to. err is the exporter's, which may repeat what the far side has worded.
func (a *answers) judge(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.accepted {
		if a.rejected > 0 {
			return &sink.BatchError{Reason: sink.Refused, Err: credentials.Hide(fmt.Errorf("%d records rejected: %s", a.rejected, a.said), a.secrets)}
		}
		return nil // a warning may have come along, which the exporter takes for an error
	}
	if err == nil {
		return errors.New("the far side has not answered")
	}
	reason, permanent := a.reason(err)
	err = credentials.Hide(err, a.secrets)
	if permanent {
		return &sink.BatchError{Reason: reason, Err: err}
	}
	return err
}

// reason tells whether it is the records that the far side did not like. Whom it does not know, and what it does not serve, is no fault of theirs. (OTLP 1.x, "Failures"
// and "Failures 1" list what may be sent again; for evidence all else may be too, unless it is shown that it is the record's fault.)
func (a *answers) reason(err error) (reason sink.Reason, permanent bool) {
	switch a.status {
	case 0: // gRPC, or there was no answer
	case http.StatusRequestEntityTooLarge:
		return sink.TooLarge, true
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		return sink.Refused, true
	default:
		return "", false
	}
	s, ok := status.FromError(err)
	if !ok {
		return "", false
	}
	switch s.Code() {
	case codes.ResourceExhausted:
		return sink.TooLarge, strings.Contains(s.Message(), "larger than max") // else it wants a pause
	case codes.InvalidArgument, codes.Internal:
		return sink.Refused, true
	}
	return "", false
}
