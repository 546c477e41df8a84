// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"os"
	"testing"
)

const kafkaSink = `
[[sinks]]
name = "kafka"
type = "kafka"
timeout = "1s"
[sinks.kafka]
brokers = ["{BROKER}"]
topic = "audit"
tls = { ca = "{CA}", cert = "{CERT}", key = "{KEY}" }
`

// testFaults ships while the broker is killed, parted from the shipper, and has its disk filled.
func (b *broker) testFaults(t *testing.T) {
	b.useTopic(t, "audit")
	w := startWriters(t)
	a := b.authority
	s := ship(t, w, fill(kafkaSink, "BROKER", b.mtls.address(), "CA", a.file("ca"), "CERT", a.file("client"), "KEY", a.file("client-key")))
	var ballast string
	survive(t, w, s, b,
		fault{"the broker is killed", func() { b.process.kill() }, func() { b.start(t) }},
		fault{"the network is parted", func() { b.mtls.hold(true, true) }, func() { b.mtls.hold(false, false) }},
		fault{"answers are lost", func() { b.mtls.hold(false, true) }, func() { b.mtls.reset(); b.mtls.hold(false, false) }},
		fault{"connections are reset", func() { b.mtls.reset() }, func() { b.mtls.reset() }},
		fault{"the broker's disk is full", func() {
			ballast = b.fillDisk(t)
			<-b.process.done // a broker that cannot write ends itself
		}, func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			b.start(t)
		}},
	)
}
