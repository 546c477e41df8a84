// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// The suffixes of Kubernetes quantities (k8s.io/apimachinery/pkg/api/resource), as numerator and denominator.
var suffixes = map[string][2]int64{
	"n": {1, 1e9}, "u": {1, 1e6}, "m": {1, 1e3}, "": {1, 1},
	"k": {1e3, 1}, "M": {1e6, 1}, "G": {1e9, 1}, "T": {1e12, 1}, "P": {1e15, 1}, "E": {1e18, 1},
	"Ki": {1 << 10, 1}, "Mi": {1 << 20, 1}, "Gi": {1 << 30, 1}, "Ti": {1 << 40, 1}, "Pi": {1 << 50, 1}, "Ei": {1 << 60, 1},
}

// maxQuantity bounds the length of a quantity; the longest sensible one has 20 digits, a point and a suffix.
const maxQuantity = 40

// ParseCPU reads a quantity of CPUs ("2", "500m", "1.5") into thousandths. What is not a whole number of
// thousandths, negative or too large is an error.
func ParseCPU(s string) (int64, error) {
	return parseQuantity(s, 1000, "thousandths of a CPU")
}

// ParseBytes reads a quantity of bytes ("1800Mi", "1G", "0"). What is not a whole number of bytes, negative or
// too large is an error.
func ParseBytes(s string) (int64, error) {
	n, err := parseQuantity(s, 1, "bytes")
	if err != nil && strings.HasSuffix(s, "m") {
		err = fmt.Errorf("%w (m means thousandths; for megabytes write M or Mi)", err)
	}
	return n, err
}

// ParseCount reads a quantity of whole things, such as tasks or operations a second ("256", "1k").
func ParseCount(s string) (int64, error) {
	return parseQuantity(s, 1, "units")
}

func parseQuantity(s string, scale int64, unit string) (int64, error) {
	fail := func(reason string) (int64, error) {
		if len(s) > maxQuantity {
			s = s[:maxQuantity] + "…"
		}
		return 0, fmt.Errorf("quantity %q: %s", s, reason)
	}
	end := len(s) - len(strings.TrimLeft(s, "0123456789."))
	number, suffix := s[:end], s[end:]
	whole, frac, hasPoint := strings.Cut(number, ".")
	switch {
	case s == "":
		return fail("is empty; write a number such as 2, 500m or 1800Mi")
	case len(s) > maxQuantity:
		return fail("is too long")
	case s[0] == '-':
		return fail("is negative")
	case strings.ContainsAny(s, " \t\n"):
		return fail("has white space in it")
	case number == "" || whole == "" || strings.Contains(frac, ".") || (hasPoint && frac == ""):
		return fail("is not a number with an optional suffix, such as 2, 0.5, 500m or 1800Mi")
	case len(suffix) > 1 && (suffix[0] == 'e' || suffix[0] == 'E') && suffix != "Ei":
		return fail("exponents are not taken; write the number out or use a suffix")
	}
	unitOf, ok := suffixes[suffix]
	if !ok {
		return fail(fmt.Sprintf("has the unknown suffix %q; known are m, k, M, G, T, P, E and Ki, Mi, Gi, Ti, Pi, Ei", suffix))
	}
	n, ok := new(big.Int).SetString(whole+frac, 10)
	if !ok {
		return fail("is not a number")
	}
	n.Mul(n, big.NewInt(scale))
	n.Mul(n, big.NewInt(unitOf[0]))
	den := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(frac))), nil)
	den.Mul(den, big.NewInt(unitOf[1]))
	if _, rest := n.QuoRem(n, den, new(big.Int)); rest.Sign() != 0 {
		return fail("is not a whole number of " + unit)
	}
	if !n.IsInt64() {
		return fail("is too large")
	}
	return n.Int64(), nil
}

// FormatCPU writes thousandths of a CPU as [ParseCPU] reads them: "2", "1500m".
func FormatCPU(milli int64) string {
	if milli%1000 == 0 {
		return strconv.FormatInt(milli/1000, 10)
	}
	return strconv.FormatInt(milli, 10) + "m"
}

// FormatBytes writes bytes as [ParseBytes] reads them, with the largest binary suffix that loses nothing.
func FormatBytes(n int64) string {
	names := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(names)-1 {
		n, i = n/1024, i+1
	}
	return strconv.FormatInt(n, 10) + names[i]
}

// noLimit stands for "unlimited" in comparisons. The kernel's own ceilings are below it: memory counters end
// at PAGE_COUNTER_MAX pages, 9223372036854771712 bytes.
const noLimit = int64(^uint64(0) >> 1)

// parseKernel reads a value as the kernel's files take and show it: "max", or decimal bytes with one of the
// suffixes of memparse(). Hexadecimal, octal and several lines are refused: a line that we read otherwise
// than the kernel would be a way around the ceiling.
func parseKernel(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if s == "max" {
		return noLimit, nil
	}
	shift := 0
	if i := len(s) - 1; i > 0 {
		if p := strings.IndexByte("KMGTPE", s[i]&^0x20); p >= 0 {
			s, shift = s[:i], 10*(p+1)
		}
	}
	if s == "" || strings.Trim(s, "0123456789") != "" || (len(s) > 1 && s[0] == '0') {
		return 0, errors.New("is neither max nor a plain decimal number")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > noLimit>>shift {
		return 0, errors.New("is too large")
	}
	return n << shift, nil
}
