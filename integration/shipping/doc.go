// SPDX-License-Identifier: Apache-2.0

// Package shipping has only tests. They ship streams to a real Kafka broker, a real NATS server with JetStream and a real OpenTelemetry collector,
// each of which is killed, partitioned and filled meanwhile, and count by id what arrives. It is a module of its own, so that the clients that it
// needs to look at the far side stay out of Metsuke's.
//
// TestMain puts the test binary into a network and a mount namespace of its own: ports are nobody else's there, and file systems that are made
// to be filled go with it. So the tests need root. The programs come from the cache of tools (integration/tools), metsuke from METSUKE_BIN or bin.
package shipping
