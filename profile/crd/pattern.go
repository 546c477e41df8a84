// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"strings"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
)

// cpuListPattern is the kernel's list format with numbers below cgroups.MaxCPUs. That ranges go upwards is more than a pattern can
// say.
var cpuListPattern = func() string {
	number := `0*(0|` + atMost(fmt.Sprint(cgroups.MaxCPUs-1)) + `)`
	span := number + `(-` + number + `)?`
	return `^\s*` + span + `(,` + span + `)*\s*$`
}()

// devicePattern is that of the names in limits.io: a path under /dev, or major:minor of 12 and 20 bits.
var devicePattern = `^(/dev/|0*(0|` + atMost("4095") + `):0*(0|` + atMost("1048575") + `)$)`

// quantityPattern is that of quantities that are whole numbers of a unit of 10^-digits, with the suffixes of Kubernetes. Beside
// what is whole at sight it takes eighths of binary units.
func quantityPattern(digits int) string {
	exponent := map[string]int{"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
	forms := []string{`\.(5|25|75|125|375|625|875)0*[KMGTPE]i`, fmt.Sprintf(`(\.[0-9]{1,%d}0*)?[KMGTPE]i`, digits)}
	if digits == 0 {
		forms[1] = `(\.0+)?[KMGTPE]i`
	}
	whole := `[0-9]+`
	var small []string
	for _, suffix := range []string{"n", "u", "m", "", "k", "M", "G", "T", "P", "E"} {
		switch e := exponent[suffix] + digits; {
		case e < 0: // so many zeros at the end, or nothing but zeros
			small = append(small, fmt.Sprintf(`([0-9]*0{%d}|0+)(\.0+)?%s`, -e, suffix))
		case e == 0:
			forms = append(forms, `(\.0+)?`+suffix)
		default:
			forms = append(forms, fmt.Sprintf(`(\.[0-9]{1,%d}0*)?%s`, e, suffix))
		}
	}
	return "^(" + whole + "(" + strings.Join(forms, "|") + ")|" + strings.Join(small, "|") + ")$"
}

func errnoPattern() string {
	return `^(0*(` + atMost(fmt.Sprint(profile.MaxErrno)) + `)|` + strings.Join(profile.ErrnoNames(), "|") + `)$`
}

// atMost matches the decimal numbers from 1 to most, which has more than one digit, without leading zeros.
func atMost(most string) string {
	n := len(most)
	alternatives := []string{fmt.Sprintf(`[1-9][0-9]{0,%d}`, n-2)}
	for i := range n {
		low := byte('0')
		if i == 0 {
			low = '1'
		}
		if most[i] <= low {
			continue
		}
		alternatives = append(alternatives, fmt.Sprintf(`%s[%c-%c][0-9]{%d}`, most[:i], low, most[i]-1, n-i-1))
	}
	return strings.Join(append(alternatives, most), "|")
}
