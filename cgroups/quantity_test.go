// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"math/big"
	"strings"
	"testing"
)

func TestParseQuantities(t *testing.T) {
	parsers := map[string]func(string) (int64, error){"cpu": ParseCPU, "bytes": ParseBytes, "count": ParseCount}
	tests := []struct {
		parser, in string
		want       int64
		err        string
	}{
		{"cpu", "2", 2000, ""},
		{"cpu", "500m", 500, ""},
		{"cpu", "0.5", 500, ""},
		{"cpu", "1.250", 1250, ""},
		{"cpu", "1k", 1_000_000, ""},
		{"cpu", "1000000u", 1000, ""},
		{"cpu", "0", 0, ""},
		{"cpu", "0.0005", 0, "not a whole number of thousandths of a CPU"},
		{"cpu", "1u", 0, "not a whole number"},
		{"cpu", "-1", 0, "negative"},
		{"cpu", "9223372036854775807", 0, "too large"},
		{"bytes", "1800Mi", 1800 << 20, ""},
		{"bytes", "1G", 1_000_000_000, ""},
		{"bytes", "0", 0, ""},
		{"bytes", "1.5Gi", 3 << 29, ""},
		{"bytes", "9223372036854775807", 9223372036854775807, ""},
		{"bytes", "9223372036854775808", 0, "too large"},
		{"bytes", "8Ei", 0, "too large"},
		{"bytes", "7Ei", 7 << 60, ""},
		{"bytes", "1E", 1_000_000_000_000_000_000, ""},
		{"bytes", "100m", 0, "write M or Mi"},
		{"bytes", "0.1Ki", 0, "not a whole number of bytes"},
		{"bytes", "1e3", 0, "exponents"},
		{"bytes", "1E3", 0, "exponents"},
		{"bytes", "1KB", 0, `unknown suffix "KB"`},
		{"bytes", "1K", 0, `unknown suffix "K"`},
		{"bytes", " 1", 0, "white space"},
		{"bytes", "1 Gi", 0, "white space"},
		{"bytes", "", 0, "empty"},
		{"bytes", ".5", 0, "not a number"},
		{"bytes", "5.", 0, "not a number"},
		{"bytes", "1.2.3", 0, "not a number"},
		{"bytes", "+1", 0, "not a number"},
		{"bytes", "Mi", 0, "not a number"},
		{"bytes", "0x10", 0, "unknown suffix"},
		{"bytes", "١", 0, "not a number"},
		{"bytes", strings.Repeat("9", 1000), 0, "too long"},
		{"count", "256", 256, ""},
		{"count", "1k", 1000, ""},
		{"count", "1.5", 0, "not a whole number"},
	}
	for _, tt := range tests {
		got, err := parsers[tt.parser](tt.in)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%s %q: got %d, %v; want %d", tt.parser, tt.in, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s %q: got %d, %v; want an error with %q", tt.parser, tt.in, got, err, tt.err)
		}
	}
}

func TestFormatRoundTrip(t *testing.T) {
	for _, n := range []int64{0, 1, 1023, 1024, 1536, 1800 << 20, 3 << 30, 7 << 60, noLimit} {
		if got, err := ParseBytes(FormatBytes(n)); got != n || err != nil {
			t.Errorf("bytes %d as %s: got %d, %v", n, FormatBytes(n), got, err)
		}
	}
	for _, n := range []int64{0, 1, 999, 1000, 1500, 2000} {
		if got, err := ParseCPU(FormatCPU(n)); got != n || err != nil {
			t.Errorf("cpu %d as %s: got %d, %v", n, FormatCPU(n), got, err)
		}
	}
	if got := FormatBytes(1800 << 20); got != "1800Mi" {
		t.Errorf("got %s", got)
	}
}

// FuzzParseQuantity compares with arithmetic on rationals.
func FuzzParseQuantity(f *testing.F) {
	for _, s := range []string{"2", "500m", "1800Mi", "1.5Gi", "0", "-1", "1e3", "8Ei", "0.001", "1n", "", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		digits := strings.TrimRight(s, "numkKMGTPEi")
		scale, known := suffixes[s[len(digits):]]
		want, ok := new(big.Rat).SetString(digits)
		if err != nil {
			return
		}
		if !known || !ok || n < 0 {
			t.Fatalf("%q was taken as %d", s, n)
		}
		want.Mul(want, big.NewRat(scale[0], scale[1]))
		if want.Cmp(new(big.Rat).SetInt64(n)) != 0 {
			t.Fatalf("%q is %s, got %d", s, want.RatString(), n)
		}
		if again, err := ParseBytes(FormatBytes(n)); err != nil || again != n {
			t.Fatalf("%d does not survive %q: %d, %v", n, FormatBytes(n), again, err)
		}
	})
}

func TestParseKernel(t *testing.T) {
	for in, want := range map[string]int64{
		"max": noLimit, "max\n": noLimit, "0": 0, "4096": 4096, "1K": 1024, "2m": 2 << 20, "1g\n": 1 << 30,
		"9223372036854771712": 9223372036854771712,
	} {
		if got, err := parseKernel(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v", in, got, err)
		}
	}
	// Each of these the kernel reads, or may read, as another number than we would.
	for _, in := range []string{"", "K", "-1", "0x10", "010", "1 2", "1\n2", "1\nmax", "1KK", "MAX", "+1", "8E", "99999999999999999999"} {
		if got, err := parseKernel(in); err == nil {
			t.Errorf("%q was taken as %d", in, got)
		}
	}
}

func TestCPUSets(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "0-3": "0-3", "3,1,2": "1-3", "0,2,4": "0,2,4", "63,64": "63-64", "8191": "8191", "0-1,1-2": "0-2", "0-3\n": "0-3",
	} {
		set, err := parseSet(in)
		if err != nil || set.String() != want {
			t.Errorf("%q: got %q, %v; want %q", in, set.String(), err, want)
		}
	}
	for _, in := range []string{"", ",", "1,", "a", "3-1", "-1", "1-", "0-31:2/4", "8192", "0-99999999999", NoCPUs, "1 2"} {
		if set, err := parseSet(in); err == nil {
			t.Errorf("%q was taken as %q", in, set)
		}
	}
	if _, err := intersect("0-1", "2-3"); err == nil {
		t.Error("disjoint sets intersect")
	}
	if got := tightenSets("0-1", "2-3"); got != NoCPUs {
		t.Errorf("disjoint sets tighten to %q", got)
	}
	if got := tightenSets("0-5", "4-9"); got != "4-5" {
		t.Errorf("got %q", got)
	}
}

func FuzzParseSet(f *testing.F) {
	for _, s := range []string{"0-3,7", "0", "8191", "1-", "none"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseSet(s)
		if err != nil {
			return
		}
		again, err := parseSet(set.String())
		if err != nil || again != set || set.empty() {
			t.Fatalf("%q became %q: %v", s, set, err)
		}
	})
}

func TestWeights(t *testing.T) {
	last := uint64(0)
	for s := uint64(0); s <= maxShares+10; s++ {
		w := weightOfShares(s)
		if w < last || w < linearWeight(s) || w > 10000 {
			t.Fatalf("%d shares: weight %d after %d; linear %d", s, w, last, linearWeight(s))
		}
		last = w
	}
	for shares, want := range map[uint64]uint64{2: 1, 1024: 100, 262144: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
	for w := uint64(1); w <= 10000; w++ {
		s := sharesOfWeight(w)
		if got := weightOfShares(s); got > w || s < minShares || (s < maxShares && weightOfShares(s+1) <= w) {
			t.Fatalf("weight %d: %d shares have weight %d", w, s, got)
		}
	}
}
