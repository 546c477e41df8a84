// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	collogpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

func batch() []sink.Record {
	who := func(pod string) *audit.Identity {
		return &audit.Identity{Node: "n", Namespace: "ns", Pod: pod, PodUID: "u", Container: "c\xff", ContainerID: "id", Profile: "coder"}
	}
	a, b := who("a"), who("b")
	at := time.Unix(1_700_000_000, 5)
	return []sink.Record{
		{ID: "1", Stream: "ns_a_u/c", Identity: a, Seq: 1, Time: at, Kind: audit.KindSyscall, Verdict: audit.VerdictDenied, Line: []byte(`{"seq":1}`)},
		{ID: "2", Stream: "ns_b_u/c", Identity: b, Seq: 1, Time: at, Kind: audit.KindSyscall, Verdict: audit.VerdictKilled, Line: []byte(`{"seq":1,"x":"é"}`)},
		{ID: "3", Stream: "ns_a_u/c", Identity: a, Seq: 2, Time: at, Kind: audit.KindEnd, Line: []byte(`{"seq":2}`)},
		{ID: "4", Identity: &audit.Identity{Node: "n"}, Time: at, Kind: sink.KindLedger, Line: []byte(`{}`)},
	}
}

func find(list []*commonpb.KeyValue, key string) string {
	for _, kv := range list {
		if kv.GetKey() == key {
			return kv.GetValue().GetStringValue()
		}
	}
	return ""
}

// TestSend: each record is a log record, below the resource of its container, those of a container in their order.
func TestSend(t *testing.T) {
	protocols(t, func(t *testing.T, protocol config.Protocol) {
		c := &collector{}
		s := open(t, protocol, "http", c.serve(t, protocol, nil), nil)
		for range 2 {
			if err := s.Send(t.Context(), batch()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Check(t.Context()); err != nil || len(c.requests) != 3 || len(c.requests[2].GetResourceLogs()) != 0 {
			t.Fatalf("%v, %d requests", err, len(c.requests))
		}
		got := map[string][]string{}
		for _, resource := range c.requests[1].GetResourceLogs() {
			of := resource.GetResource().GetAttributes()
			if find(of, "service.name") != "metsuke" || find(of, "k8s.node.name") != "n" || find(of, "k8s.pod.name") != "" && find(of, "k8s.container.name") != "c\ufffd" {
				t.Errorf("%v", of)
			}
			for _, r := range resource.GetScopeLogs()[0].GetLogRecords() {
				if r.GetTimeUnixNano() != 1_700_000_000_000_000_005 || r.GetObservedTimeUnixNano() == 0 {
					t.Errorf("%v", r)
				}
				pod := find(of, "k8s.pod.name")
				got[pod] = append(got[pod], strings.Join([]string{
					find(r.GetAttributes(), "log.record.uid"), r.GetBody().GetStringValue(), r.GetSeverityText(), r.GetEventName(), find(r.GetAttributes(), "metsuke.verdict"),
				}, " "))
			}
		}
		for pod, want := range map[string]string{
			"a": `1 {"seq":1} WARN metsuke.syscall denied|3 {"seq":2} INFO metsuke.end `,
			"b": `2 {"seq":1,"x":"é"} ERROR metsuke.syscall killed`,
			"":  `4 {} INFO metsuke.ledger `,
		} {
			if all := strings.Join(got[pod], "|"); all != want {
				t.Errorf("%s: %s", pod, all)
			}
		}
	})
}

// TestAnswers: what each answer makes of a batch.
func TestAnswers(t *testing.T) {
	partial := func(n int64, text string) (*collogpb.ExportLogsServiceResponse, error) {
		return &collogpb.ExportLogsServiceResponse{PartialSuccess: &collogpb.ExportLogsPartialSuccess{RejectedLogRecords: n, ErrorMessage: text}}, nil
	}
	fails := func(c codes.Code, text string) (*collogpb.ExportLogsServiceResponse, error) {
		return nil, status.Error(c, text)
	}
	for name, tt := range map[string]struct {
		said   *collogpb.ExportLogsServiceResponse
		err    error
		failed bool
		reason sink.Reason // of a BatchError
	}{
		"all":          {},
		"a warning":    {said: first(partial(0, "slow down"))},
		"some":         {said: first(partial(1, "too old")), failed: true, reason: sink.Refused},
		"invalid":      {err: second(fails(codes.InvalidArgument, "bad")), failed: true, reason: sink.Refused},
		"internal":     {err: second(fails(codes.Internal, "bad")), failed: true, reason: sink.Refused},
		"too large":    {err: second(fails(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)")), failed: true, reason: sink.TooLarge},
		"unavailable":  {err: second(fails(codes.Unavailable, "later")), failed: true},
		"unknown user": {err: second(fails(codes.Unauthenticated, "who?")), failed: true},
		"no service":   {err: second(fails(codes.NotFound, "what?")), failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, protocol config.Protocol) {
				said := tt.said
				if said == nil {
					said = &collogpb.ExportLogsServiceResponse{}
				}
				c := &collector{answer: func(*collogpb.ExportLogsServiceRequest) (*collogpb.ExportLogsServiceResponse, error) {
					return said, tt.err
				}}
				s := open(t, protocol, "http", c.serve(t, protocol, nil), nil)
				err := s.Send(t.Context(), batch())
				var b *sink.BatchError
				if (err != nil) != tt.failed || errors.As(err, &b) != (tt.reason != "") || b != nil && b.Reason != tt.reason {
					t.Errorf("%v", err)
				}
				if len(c.requests) != 1 {
					t.Errorf("%d requests: nothing is to be tried again here", len(c.requests))
				}
			})
		})
	}
}

func first[A, B any](a A, _ B) A  { return a }
func second[A, B any](_ A, b B) B { return b }

// TestNobodyThere: that is no fault of the records.
func TestNobodyThere(t *testing.T) {
	protocols(t, func(t *testing.T, protocol config.Protocol) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		s := open(t, protocol, "http", address, nil)
		var b *sink.BatchError
		if err := s.Send(t.Context(), batch()); err == nil || errors.As(err, &b) {
			t.Errorf("%v", err)
		}
		if err := s.Check(t.Context()); err == nil {
			t.Error("no error")
		}
	})
}

// TestNotOTLP: a web server that says yes to everything has confirmed nothing.
func TestNotOTLP(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>welcome</html>")) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		server := httptest.NewServer(handler)
		s := open(t, config.ProtocolHTTP, "http", server.Listener.Addr().String(), nil)
		var b *sink.BatchError
		if err := s.Send(t.Context(), batch()); err == nil || errors.As(err, &b) || s.Check(t.Context()) == nil {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}

// TestHeaders: they are read anew, and in no error, even if the far side repeats them.
func TestHeaders(t *testing.T) {
	protocols(t, func(t *testing.T, protocol config.Protocol) {
		c := &collector{}
		file := filepath.Join(t.TempDir(), "headers")
		s := open(t, protocol, "http", c.serve(t, protocol, nil), func(o *config.OTLP) { o.Headers = file })
		if err := s.Send(t.Context(), batch()); err == nil || len(c.requests) != 0 {
			t.Errorf("without the file: %v", err)
		}
		for _, token := range []string{"Bearer first-s3cret", "Bearer second-s3cret"} {
			if err := os.WriteFile(file, []byte("authorization: "+token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), batch()); err != nil || c.tokens[len(c.tokens)-1] != token {
				t.Errorf("%v, %q", err, c.tokens)
			}
		}
		c.answer = func(*collogpb.ExportLogsServiceRequest) (*collogpb.ExportLogsServiceResponse, error) {
			return nil, status.Error(codes.Unauthenticated, "not "+c.tokens[len(c.tokens)-1])
		}
		for _, err := range []error{s.Send(t.Context(), batch()), s.Check(t.Context())} {
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestMutualTLS: both sides show certificates; those of the client, and the authority, are read anew for each connection.
func TestMutualTLS(t *testing.T) {
	protocols(t, func(t *testing.T, protocol config.Protocol) {
		p := newPKI(t)
		p.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
		cert, err := tls.LoadX509KeyPair(p.file("server.pem"), p.file("server-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(p.ca)
		c := &collector{}
		address := c.serve(t, protocol, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"}})
		own := &config.TLS{CA: p.file("ca.pem"), Cert: p.file("client.pem"), Key: p.file("client-key.pem")}
		other := newPKI(t)
		for name, tt := range map[string]struct {
			tls config.TLS
			ok  bool
		}{
			"without a certificate": {config.TLS{CA: own.CA}, false},
			"another authority":     {config.TLS{CA: other.file("ca.pem"), Cert: own.Cert, Key: own.Key}, false},
			"another name":          {config.TLS{CA: own.CA, Cert: own.Cert, Key: own.Key, ServerName: "x"}, false},
			"all":                   {*own, true},
		} {
			p.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			s := open(t, protocol, "https", address, func(o *config.OTLP) { o.TLS = &tt.tls })
			var b *sink.BatchError
			if err := s.Send(t.Context(), batch()); (err == nil) != tt.ok || errors.As(err, &b) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Before there are files nothing is sent, and then it is, by the same sink.
		late := *own
		late.CA = filepath.Join(t.TempDir(), "ca.pem")
		s := open(t, protocol, "https", address, func(o *config.OTLP) { o.TLS = &late })
		if err := s.Send(t.Context(), batch()); err == nil {
			t.Error("without an authority's file: no error")
		}
		data, err := os.ReadFile(own.CA)
		if err = errors.Join(err, os.WriteFile(late.CA, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			err := s.Send(t.Context(), batch())
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	})
}
