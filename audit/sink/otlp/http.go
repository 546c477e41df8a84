// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	collogpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

const (
	logsPath  = "/v1/logs"
	protobuf  = "application/x-protobuf"
	maxAnswer = 256 << 10 // bytes
)

// overHTTP makes the exporter, with a client of our own.
func (s *Sink) overHTTP(ctx context.Context, c *config.Sink) error {
	o := c.OTLP
	to := *o.Endpoint
	if strings.Trim(to.Path, "/") == "" {
		to.Path = logsPath
	}
	transport := newTransport(o)
	client := &http.Client{
		Transport: &through{transport, s.answers},
		// A redirect would take the records, and the headers, where nobody said that they should go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.end = func() error { transport.CloseIdleConnections(); return nil }
	s.empty = func(ctx context.Context) error { return post(ctx, client, to.String()) }
	compression := otlploghttp.NoCompression
	if o.Compression == config.CompressionGzip {
		compression = otlploghttp.GzipCompression
	}
	var err error
	s.exporter, err = otlploghttp.New(ctx, otlploghttp.WithHTTPClient(client), otlploghttp.WithEndpointURL(to.String()), otlploghttp.WithCompression(compression),
		otlploghttp.WithTimeout(c.Timeout), otlploghttp.WithHeaders(nil), otlploghttp.WithMaxResponseSize(maxAnswer), otlploghttp.WithRetry(otlploghttp.RetryConfig{}))
	return err
}

// newTransport secures each connection with the files as they are then.
func newTransport(o *config.OTLP) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext: dialer.DialContext,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := credentials.TLS(o.TLS, o.Endpoint.Hostname())
			if err != nil {
				return nil, err
			}
			return (&tls.Dialer{NetDialer: dialer, Config: c}).DialContext(ctx, network, address)
		},
		MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
}

// through is the way of a request and its answer.
type through struct {
	http.RoundTripper
	answers *answers
}

// RoundTrip implements http.RoundTripper.
func (t *through) RoundTrip(in *http.Request) (*http.Response, error) {
	headers, err := t.answers.headers()
	if err != nil {
		return nil, err
	}
	out := in.Clone(in.Context())
	for name, value := range headers {
		out.Header.Set(name, value)
	}
	answer, err := t.RoundTripper.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	t.answers.setStatus(answer.StatusCode)
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return answer, nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	var said collogpb.ExportLogsServiceResponse
	if form := answer.Header.Get("Content-Type"); len(body) > 0 && !strings.HasPrefix(form, protobuf) {
		return nil, fmt.Errorf("the answer is not one of OTLP, but %q: is the endpoint right?", form)
	}
	if err := proto.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("the answer is not one of OTLP: %w", err)
	}
	t.answers.accept(said.GetPartialSuccess().GetRejectedLogRecords(), said.GetPartialSuccess().GetErrorMessage())
	return answer, nil
}

func (a *answers) setStatus(code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = code
}

// post sends an empty request.
func post(ctx context.Context, client *http.Client, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", protobuf)
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 256)) // only for the message
	return errors.Join(fmt.Errorf("%s: %s %s", to, answer.Status, text), answer.Body.Close())
}
