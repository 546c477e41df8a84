// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

const (
	// What a client has room for: more than the largest batch, for it has only one.
	maxRecords = 20_000
	maxBytes   = 32 << 20
	retries    = 2 // of a request that is not for producing, before its error is told
)

// options are those of a client. Idempotence and the confirmation of all replicas in sync are the library's defaults.
func options(c *config.Kafka, s *shown) ([]kgo.Opt, error) {
	o := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.DefaultProduceTopicAlways(),
		kgo.DefaultProduceTopic(c.Topic),
		kgo.ClientID("metsuke"),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.MaxBufferedRecords(maxRecords),
		kgo.MaxBufferedBytes(maxBytes),
		kgo.RequestRetries(retries),
		kgo.DisableClientMetrics(),
		kgo.Dialer(dialer(c)),
	}
	if c.SASL != nil {
		mechanism, err := mechanism(c.SASL, s)
		if err != nil {
			return nil, err
		}
		o = append(o, kgo.SASL(mechanism))
	}
	return o, nil
}

// dialer reads the files of TLS for each connection. Without TLS a user is shown to this machine alone: brokers name others, that no configuration has.
func dialer(c *config.Kafka) func(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if c.Transport != config.TransportTLS {
			if c.SASL != nil && !config.Loopback(host) {
				return nil, fmt.Errorf("the cluster names the broker %s, which would be sent the user's password in clear text; expected transport = \"tls\"", address)
			}
			return plain.DialContext(ctx, network, address)
		}
		secured, err := credentials.TLS(c.TLS, host)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: plain, Config: secured}).DialContext(ctx, network, address)
	}
}

// shown is what brokers were shown and must not be repeated. It is safe for concurrent use.
type shown struct {
	mu       sync.Mutex
	password string
}

// read reads a password, and keeps it in mind.
func (s *shown) read(path string) (string, error) {
	password, err := credentials.Secret(path)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.password = password
	}
	return password, err
}

func (s *shown) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []string{s.password}
}

// mechanism reads the password for each connection.
func mechanism(c *config.SASL, s *shown) (sasl.Mechanism, error) {
	scramAuth := func(context.Context) (scram.Auth, error) {
		password, err := s.read(c.Password)
		return scram.Auth{User: c.User, Pass: password}, err
	}
	switch c.Mechanism {
	case config.MechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := s.read(c.Password)
			return plain.Auth{User: c.User, Pass: password}, err
		}), nil
	case config.MechanismSCRAM256:
		return scram.Sha256(scramAuth), nil
	case config.MechanismSCRAM512:
		return scram.Sha512(scramAuth), nil
	default:
		return nil, fmt.Errorf("there is no mechanism %q", c.Mechanism)
	}
}
