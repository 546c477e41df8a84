// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"testing"

	"github.com/nats-io/nats.go"
)

const natsSink = `
[[sinks]]
name = "nats"
type = "nats"
timeout = "1s"
[sinks.nats]
servers = ["tls://{SERVER}"]
subject = "metsuke.audit"
stream = "AUDIT"
tls = { ca = "{CA}", cert = "{CERT}", key = "{KEY}" }
`

// startMutualNATS starts a server that lets in whom a certificate names, and returns a sink that has one.
func startMutualNATS(t *testing.T) (server *natsServer, sink string) {
	t.Helper()
	a := newAuthority(t)
	server = startNATS(t, fill(`tls { cert_file: "{CERT}", key_file: "{KEY}", ca_file: "{CA}", verify: true }`,
		"CERT", a.file("server"), "KEY", a.file("server-key"), "CA", a.file("ca")),
		nats.RootCAs(a.file("ca")), nats.ClientCert(a.file("client"), a.file("client-key")))
	server.setStream(t, -1)
	return server, fill(natsSink, "SERVER", server.proxy.address(), "CA", a.file("ca"), "CERT", a.file("client"), "KEY", a.file("client-key"))
}

// A server of NATS is killed, parted from the shipper, and its stream is filled.
func TestNATSFaults(t *testing.T) {
	t.Parallel()
	server, sink := startMutualNATS(t)
	w := startWriters(t)
	s := ship(t, w, sink)
	printed := 0
	survive(t, w, s, server,
		fault{"the server is killed", func() { server.process.kill() }, func() { server.start(t) }},
		fault{"the network is parted", func() { server.proxy.hold(true, true) }, func() { server.proxy.hold(false, false) }},
		fault{"answers are lost", func() { server.proxy.hold(false, true) }, func() { server.proxy.reset(); server.proxy.hold(false, false) }},
		fault{"connections are reset", func() { server.proxy.reset() }, func() { server.proxy.reset() }},
		fault{"the stream is full", func() {
			printed = s.process.printed(t)
			server.setStream(t, int64(server.state(t).Bytes))
		}, func() {
			s.process.says(t, "is it full?", printed)
			server.setStream(t, -1)
		}},
	)
}
