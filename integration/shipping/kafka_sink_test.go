// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/kafka"
)

// TestKafka is all that needs a broker: it takes its time to start.
func TestKafka(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.useTopic(t, "sink")
	t.Run("credentials", b.testCredentials)
	t.Run("rotation", b.testRotation)
	t.Run("answers", b.testAnswers)
	t.Run("faults", b.testFaults)
}

// mutual and withUser are how the shipper comes to the broker: with a certificate, or as a user.
func (b *broker) mutual(t *testing.T) config.Kafka {
	t.Helper()
	return config.Kafka{
		Brokers: []string{b.mtls.address()}, Topic: b.topic, Transport: config.TransportTLS,
		TLS: &config.TLS{CA: b.authority.file("ca"), Cert: b.authority.file("client"), Key: b.authority.file("client-key")},
	}
}

func (b *broker) withUser(t *testing.T, mechanism config.Mechanism, password string) config.Kafka {
	t.Helper()
	return config.Kafka{
		Brokers: []string{b.sasl.address()}, Topic: b.topic, Transport: config.TransportTLS, TLS: &config.TLS{CA: b.authority.file("ca")},
		SASL: &config.SASL{Mechanism: mechanism, User: "metsuke", Password: write(t, t.TempDir(), "password", password+"\n")},
	}
}

// sendOnce is what a sink says that is used for one batch.
func sendOnce(t *testing.T, c config.Kafka, batch ...sink.Record) error {
	t.Helper()
	s := kafka.New(&c)
	defer s.Close(t.Context())
	return s.Send(within(t, patience), batch)
}

// Each way to show who the shipper is works, and fails without a secret in what is said.
func (b *broker) testCredentials(t *testing.T) {
	unknown := b.mutual(t)
	unknown.TLS = &config.TLS{CA: b.authority.file("ca")}
	distrusting := b.mutual(t)
	distrusting.TLS = nil
	for name, pair := range map[string][2]config.Kafka{
		"mTLS":  {b.mutual(t), unknown},
		"TLS":   {b.mutual(t), distrusting},
		"512":   {b.withUser(t, config.MechanismSCRAM512, password), b.withUser(t, config.MechanismSCRAM512, "wrong-"+password)},
		"256":   {b.withUser(t, config.MechanismSCRAM256, password), b.withUser(t, config.MechanismSCRAM256, "wrong-"+password)},
		"plain": {b.withUser(t, config.MechanismPlain, password), b.withUser(t, config.MechanismPlain, "wrong-"+password)},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.count(t)
			if err := sendOnce(t, pair[0], record(1, 10), record(2, 10)); err != nil {
				t.Fatal(err)
			}
			if n := b.count(t) - before; n != 2 {
				t.Errorf("%d messages came", n)
			}
			err := sendOnce(t, pair[1], record(3, 10))
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("let in, or not told: %v", err)
			}
			t.Log(err)
			if text := err.Error() + b.process.tail(); strings.Contains(text, password) {
				t.Errorf("a secret is in %s", text)
			}
		})
	}
}

// Passwords and certificates are replaced while the sink is in use.
func (b *broker) testRotation(t *testing.T) {
	c, m := b.withUser(t, config.MechanismSCRAM512, password), b.mutual(t)
	user, mutual := kafka.New(&c), kafka.New(&m)
	defer user.Close(t.Context())
	defer mutual.Close(t.Context())
	send := func() {
		t.Helper()
		for _, s := range []sink.Sink{user, mutual} {
			if err := s.Send(within(t, patience), []sink.Record{record(1, 10)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	const next = "another-hunter2"
	scram := func(password string) {
		t.Helper()
		change := kadm.UpsertSCRAM{User: "metsuke", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password}
		if _, err := b.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{change}); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Dir(c.SASL.Password), "password", password)
	}
	scram(next)
	defer scram(password)
	b.authority.issueClient(t)
	b.sasl.reset()
	b.mtls.reset()
	send()
}

// What the broker says about records, and about itself.
func (b *broker) testAnswers(t *testing.T) {
	t.Run("too large", func(t *testing.T) {
		// For the client; then for the topic.
		least := "4096"
		b.createTopic(t, "small", map[string]*string{"max.message.bytes": &least})
		small := b.mutual(t)
		small.Topic = "small"
		random := record(2, 0)
		for i := range 4096 { // which does not compress well
			random.Line = append(random.Line, record(i*7919, 0).ID[56:]...)
		}
		for name, err := range map[string]error{
			"client": sendOnce(t, b.mutual(t), record(1, 10), record(2, 2<<20), record(3, 10)), "topic": sendOnce(t, small, random),
		} {
			var content *sink.BatchError
			if !errors.As(err, &content) || content.Reason != sink.TooLarge {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("no topic", func(t *testing.T) {
		c := b.mutual(t)
		c.Topic = "nobody-made-it"
		if err := sendOnce(t, c, record(1, 10)); err == nil || !strings.Contains(err.Error(), "Metsuke does not") {
			t.Error(err)
		}
	})
	t.Run("no permission", func(t *testing.T) {
		b.createTopic(t, "others", nil)
		acl := kadm.NewACLs().Allow("User:somebody").AllowHosts("*").Topics("others").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpAll)
		if _, err := b.admin.CreateACLs(t.Context(), acl); err != nil {
			t.Fatal(err)
		}
		c := b.mutual(t)
		c.Topic = "others"
		until(t, "nobody else may write", func() bool {
			err := sendOnce(t, c, record(1, 10))
			var content *sink.BatchError
			if errors.As(err, &content) {
				t.Fatal(err)
			}
			return err != nil && strings.Contains(err.Error(), "let this user")
		})
	})
	t.Run("no answers", func(t *testing.T) {
		c := b.mutual(t)
		s := kafka.New(&c)
		defer s.Close(t.Context())
		if err := s.Check(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		before := b.count(t)
		b.mtls.hold(false, true)
		if err := s.Send(within(t, time.Second), []sink.Record{record(1, 10)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		b.mtls.hold(false, false)
		b.mtls.reset()
		if err := s.Send(within(t, patience), []sink.Record{record(1, 10)}); err != nil {
			t.Error(err)
		}
		if n := b.count(t) - before; n != 1 { // it came the first time
			t.Errorf("%d messages came", n)
		}
	})
}
