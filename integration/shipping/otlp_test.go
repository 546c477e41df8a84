// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/otlp"
)

const otlpSink = `
[[sinks]]
name = "collector"
type = "otlp"
timeout = "1s"
[sinks.otlp]
endpoint = "https://{ENDPOINT}"
protocol = "{PROTOCOL}"
`

// By each protocol, a collector is killed, parted from the shipper, and its queue filled.
func TestOTLPFaults(t *testing.T) {
	t.Parallel()
	for _, protocol := range []config.Protocol{config.ProtocolGRPC, config.ProtocolHTTP} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			c := startCollector(t)
			a, w, way := c.authority, startWriters(t), c.grpc
			more := fill(`tls = { ca = "{CA}", cert = "{CERT}", key = "{KEY}" }`, "CA", a.file("ca"), "CERT", a.file("client"), "KEY", a.file("client-key"))
			if protocol == config.ProtocolHTTP {
				way = c.http
				more = fill("tls = { ca = \"{CA}\" }\nheaders = \"{HEADERS}\"", "CA", a.file("ca"), "HEADERS", write(t, c.dir, "headers", "authorization: Bearer "+token))
			}
			printed := 0
			overflow := func() { printed = c.process.printed(t); c.takeAway(t) }
			overflown := func() { c.process.says(t, "queue is full", printed) }
			s := ship(t, w, fill(otlpSink, "ENDPOINT", way.address(), "PROTOCOL", string(protocol))+more)
			survive(t, w, s, c,
				fault{"the collector is killed", func() { c.process.kill() }, func() { c.start(t) }},
				fault{"the network is parted", func() { way.hold(true, true) }, func() { way.hold(false, false) }},
				fault{"answers are lost", func() { way.hold(false, true) }, func() { way.reset(); way.hold(false, false) }},
				fault{"connections are reset", func() { way.reset() }, func() { way.reset() }},
				fault{"the queue is full", overflow, func() { overflown(); c.putBack(t) }},
				fault{"the queue is full, and the collector is killed", overflow, func() { overflown(); c.process.kill(); c.putBack(t); c.start(t) }},
			)
		})
	}
}

// Each way to show who the shipper is works, and fails without a secret in what is said.
func TestOTLPCredentials(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	a, dir := c.authority, t.TempDir()
	trusting := &config.TLS{CA: a.file("ca")}
	headers := func(name, text string) string { return write(t, dir, name, "authorization: Bearer "+text) }
	for _, test := range []struct {
		name         string
		way          *proxy
		right, wrong config.OTLP
	}{
		{
			"a certificate, by gRPC", c.grpc,
			config.OTLP{Protocol: config.ProtocolGRPC, TLS: &config.TLS{CA: a.file("ca"), Cert: a.file("client"), Key: a.file("client-key")}},
			config.OTLP{Protocol: config.ProtocolGRPC, TLS: trusting},
		},
		{
			"a token, by HTTP", c.http,
			config.OTLP{Protocol: config.ProtocolHTTP, TLS: trusting, Headers: headers("right", token)},
			config.OTLP{Protocol: config.ProtocolHTTP, TLS: trusting, Headers: headers("wrong", "wrong-"+token)},
		},
		{
			"an authority", c.http,
			config.OTLP{Protocol: config.ProtocolHTTP, TLS: trusting, Headers: headers("right", token)},
			config.OTLP{Protocol: config.ProtocolHTTP, Headers: headers("right", token)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			send := func(o config.OTLP, n int) error {
				o.Endpoint, o.Compression = &url.URL{Scheme: "https", Host: test.way.address()}, config.CompressionGzip
				s, err := otlp.New(t.Context(), &config.Sink{Timeout: 20 * time.Second, OTLP: &o}, "test")
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close(context.WithoutCancel(t.Context()))
				return s.Send(within(t, 20*time.Second), []sink.Record{record(n, 10)})
			}
			before := c.count(t)
			if err := send(test.right, 1); err != nil {
				t.Fatal(err)
			}
			until(t, "it is written", func() bool { return c.count(t) == before+1 })
			err := send(test.wrong, 2)
			if err == nil {
				t.Fatal("let in")
			}
			t.Log(err)
			if strings.Contains(err.Error(), token) {
				t.Errorf("a secret is in %v", err)
			}
		})
	}
}
