// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"

	"metsuke.dev/metsuke/internal/tomlfile"
)

// Kafka is a topic of a Kafka cluster.
type Kafka struct {
	Brokers   []string // HOST:PORT each, to learn the cluster's others from
	Topic     string
	Transport Transport
	TLS       *TLS  // nil: with TransportTLS, the system's authorities and no certificate of ours
	SASL      *SASL // nil: no user
}

// Transport is how connections are secured.
type Transport string

// The transports.
const (
	TransportTLS       Transport = "tls"
	TransportPlaintext Transport = "plaintext"
)

// SASL says as which user the shipper comes to Kafka.
type SASL struct {
	Mechanism Mechanism
	User      string
	Password  string // file
}

// Mechanism is how a user's password is shown, by its name in SASL.
type Mechanism string

// The mechanisms.
const (
	MechanismSCRAM512 Mechanism = "SCRAM-SHA-512"
	MechanismSCRAM256 Mechanism = "SCRAM-SHA-256"
	MechanismPlain    Mechanism = "PLAIN"
)

const maxServers = 64 // brokers, or servers of NATS

// topicForm is that of a topic's name in Kafka.
var topicForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

func defaultKafka() *Kafka { return &Kafka{Transport: TransportTLS} }

var kafkaFields = slices.Concat([]tomlfile.Field[*Sink]{
	{Path: "brokers", Set: func(s *Sink, v any) string {
		return list(&s.Kafka.Brokers, v, "HOST:PORT", func(text string) bool {
			host, port, err := net.SplitHostPort(text)
			n, portErr := strconv.ParseUint(port, 10, 16)
			return err == nil && portErr == nil && n > 0 && host != ""
		})
	}},
	{Path: "topic", Set: func(s *Sink, v any) string {
		name, _ := v.(string)
		if !topicForm.MatchString(name) {
			return "1 to 249 letters, digits, '.', '_' and '-'"
		}
		s.Kafka.Topic = name
		return ""
	}},
	{Path: "transport", Set: func(s *Sink, v any) string {
		return tomlfile.Word(&s.Kafka.Transport, v, TransportTLS, TransportPlaintext)
	}},
	{Path: "sasl.mechanism", Set: func(s *Sink, v any) string {
		return tomlfile.Word(&sasl(s).Mechanism, v, MechanismSCRAM512, MechanismSCRAM256, MechanismPlain)
	}},
	{Path: "sasl.user", Set: func(s *Sink, v any) string { return tomlfile.Text(&sasl(s).User, v, maxText) }},
	{Path: "sasl.password", Hide: true, Set: func(s *Sink, v any) string { return tomlfile.Path(&sasl(s).Password, v) }},
}, tlsFields(func(s *Sink) **TLS { return &s.Kafka.TLS }))

var kafkaRequired = []required{
	{"brokers", "some of the cluster's brokers, such as [\"kafka-1.example:9093\"]"}, {"topic", "the topic's name; it must be there"},
}

func sasl(s *Sink) *SASL {
	if s.Kafka.SASL == nil {
		s.Kafka.SASL = &SASL{}
	}
	return s.Kafka.SASL
}

// list takes a list of texts of a form.
func list(to *[]string, v any, form string, valid func(string) bool) string {
	items, _ := v.([]any)
	var texts []string
	for _, item := range items {
		if text, _ := item.(string); len(text) <= maxText && valid(text) {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 || len(texts) < len(items) || len(texts) > maxServers {
		return fmt.Sprintf("a list of up to %d of the form %s", maxServers, form)
	}
	*to = texts
	return ""
}

func checkKafka(f *tomlfile.File, s *Sink, at string) {
	k := s.Kafka
	checkTLS(f, k.TLS, at)
	plain := k.Transport == TransportPlaintext
	if plain && k.TLS != nil {
		f.Errorf(at+".tls", "is for a transport that is plaintext", "expected transport = \"tls\", or no tls")
	}
	if k.SASL == nil {
		return
	}
	if k.SASL.Mechanism == "" || k.SASL.User == "" || k.SASL.Password == "" {
		f.Errorf(at+".sasl", "is not whole", "expected mechanism, user and password, which names a file")
	}
	remote := slices.ContainsFunc(k.Brokers, func(broker string) bool {
		host, _, _ := net.SplitHostPort(broker)
		return !Loopback(host)
	})
	if plain && remote {
		f.Errorf(at+".sasl", "would be sent in clear text", "expected transport = \"tls\", or brokers on this machine")
	}
}
