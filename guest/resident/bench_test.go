// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"fmt"
	"testing"
)

// BenchmarkOpenat is what an audited openat costs its caller, its close included, which nobody notifies. The host is this
// process: it parses each record and writes none.
func BenchmarkOpenat(b *testing.B) {
	for name, ordered := range bothDeliveries {
		b.Run(name, func(b *testing.B) {
			h := stand(b, options{ordered: ordered, credit: 1 << 20})
			var p50, p99, mean float64
			b.ResetTimer()
			answer := h.c.init.ask(b, "bench %d /etc/passwd", max(b.N, 100))
			b.StopTimer()
			if _, err := fmt.Sscanf(answer, "%g %g %g", &p50, &p99, &mean); err != nil {
				b.Fatalf("bench: %q", answer)
			}
			b.ReportMetric(p50, "p50-µs")
			b.ReportMetric(p99, "p99-µs")
			b.ReportMetric(1e6/mean, "calls/s")
		})
	}
}
