// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

var _ sink.Sink = (*Sink)(nil)

func TestMessage(t *testing.T) {
	line := []byte(`{"v":1}`)
	r := sink.Record{ID: "c0ffee", Stream: "ns_pod_uid/agent", Identity: &audit.Identity{Node: "node-1"}, Kind: audit.KindSyscall, Line: line}
	m := message(&r)
	line[0] = 'x' // as the shipper may, when Send has returned
	if string(m.Key) != r.Stream || string(m.Value) != `{"v":1}` || !m.Timestamp.IsZero() {
		t.Errorf("key %q, value %q, time %v", m.Key, m.Value, m.Timestamp)
	}
	headers := map[string]string{}
	for _, h := range m.Headers {
		headers[h.Key] = string(h.Value)
	}
	if len(headers) != 2 || headers["metsuke-id"] != "c0ffee" || headers["metsuke-kind"] != "syscall" {
		t.Errorf("headers %v", headers)
	}
	if r.Stream = ""; string(message(&r).Key) != "node-1" {
		t.Errorf("a statement about the node has the key %q", message(&r).Key)
	}
}

func TestReasons(t *testing.T) {
	for err, want := range map[error]sink.Reason{
		nil:                  "",
		kerr.MessageTooLarge: sink.TooLarge,
		fmt.Errorf("x: %w", kerr.RecordListTooLarge): sink.TooLarge,
		kerr.InvalidRecord:                           sink.Refused,
		kerr.TopicAuthorizationFailed:                "", // of which no record is to blame
		kerr.UnknownTopicOrPartition:                 "",
		kerr.InvalidTimestamp:                        "",
		kerr.NotEnoughReplicas:                       "",
		kerr.KafkaStorageError:                       "",
		kerr.OutOfOrderSequenceNumber:                "",
		kerr.InvalidProducerEpoch:                    "",
		kerr.SaslAuthenticationFailed:                "",
		context.DeadlineExceeded:                     "",
	} {
		if got := reasonOf(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// What a broker is shown it may repeat, which is not passed on.
func TestRepeatedPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Kafka{Topic: "audit", SASL: &config.SASL{Mechanism: config.MechanismPlain, User: "u", Password: file}}
	s := New(c)
	m, err := mechanism(c.SASL, &s.shown)
	if err != nil {
		t.Fatal(err)
	}
	if _, first, err := m.Authenticate(t.Context(), "h"); err != nil || !strings.Contains(string(first), "hunter2") {
		t.Fatalf("%q, %v", first, err)
	}
	err = s.explain(fmt.Errorf("%w: who is hunter2?", kerr.SaslAuthenticationFailed))
	if text := err.Error(); strings.Contains(text, "hunter2") || !strings.Contains(text, "who is") || !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Error(text)
	}
}

// A broker on this machine may name others, which are not shown a password without TLS either.
func TestPasswordStaysHere(t *testing.T) {
	for _, test := range []struct {
		config config.Kafka
		host   string
		said   bool
	}{
		{config.Kafka{Transport: config.TransportPlaintext, SASL: &config.SASL{}}, "192.0.2.1", true},
		{config.Kafka{Transport: config.TransportPlaintext, SASL: &config.SASL{}}, "kafka-1.example", true},
		{config.Kafka{Transport: config.TransportPlaintext, SASL: &config.SASL{}}, "127.0.0.1", false},
		{config.Kafka{Transport: config.TransportPlaintext}, "192.0.2.1", false},
		{config.Kafka{Transport: config.TransportTLS, SASL: &config.SASL{}}, "192.0.2.1", false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is dialled
		_, err := dialer(&test.config)(ctx, "tcp", net.JoinHostPort(test.host, "9092"))
		if err == nil || strings.Contains(err.Error(), "clear text") != test.said {
			t.Errorf("%s over %s: %v", test.host, test.config.Transport, err)
		}
	}
}

// A broker that is away, one that says nothing, and files that are not as they must be: each ends in time, with what is wrong, and nothing secret.
func TestNoBroker(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	here, plain := []string{silent.Addr().String()}, config.TransportPlaintext
	for _, test := range []struct {
		name   string
		config config.Kafka
		want   string
	}{
		{"away", config.Kafka{Brokers: []string{away.Addr().String()}, Transport: plain}, "refused"},
		{"silent", config.Kafka{Brokers: here, Transport: plain}, "deadline"},
		{"silent TLS", config.Kafka{Brokers: here, Transport: config.TransportTLS}, "deadline"},
		{"no authorities", config.Kafka{Brokers: here, Transport: config.TransportTLS, TLS: &config.TLS{CA: "/does/not/exist"}}, "/does/not/exist"},
		{"an unknown mechanism", config.Kafka{Brokers: here, Transport: plain, SASL: &config.SASL{Mechanism: "GSSAPI"}}, "GSSAPI"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Topic = "audit"
			s := New(&test.config)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := s.Send(ctx, []sink.Record{{ID: "1", Identity: &audit.Identity{}, Line: []byte("{}")}})
			var refused *sink.RefusedError
			var content *sink.BatchError
			if err == nil || errors.As(err, &refused) || errors.As(err, &content) {
				t.Fatalf("%v", err)
			}
			if text := err.Error(); !strings.Contains(text, test.want) || strings.Contains(text, "hunter2") {
				t.Error(text)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for _, m := range []config.Mechanism{config.MechanismPlain, config.MechanismSCRAM256, config.MechanismSCRAM512} {
		got, err := mechanism(&config.SASL{Mechanism: m, User: "u", Password: open}, &shown{})
		if err != nil || got.Name() != string(m) {
			t.Fatalf("%s: %v", m, err)
		}
		if _, _, err := got.Authenticate(t.Context(), "h"); err == nil || !strings.Contains(err.Error(), "chmod") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: a password that everybody can read: %v", m, err)
		}
	}
}
