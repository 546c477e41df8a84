// SPDX-License-Identifier: Apache-2.0

// Package monitoring has only tests. They run the alert rules in deploy/monitoring in Prometheus' own engine, and hold them and the
// dashboard against docs/metrics.md. It is a module of its own, so that Prometheus stays out of Metsuke's.
package monitoring
