// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"strings"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/profile/form"
)

// quantityRule is that of a quantity in units of 10^-digits.
func quantityRule(f *form.Field, digits int) Rule {
	write := func(n int64) string { return fmt.Sprint(n) }
	if digits > 0 {
		write = cgroups.FormatCPU
	}
	number, text := "self >= 0", fmt.Sprintf("self.matches(r'%s')", quantityPattern(digits))
	if f.Min > 0 { // the least number and the least text differ by unit: 1 and 1m; both are above 0
		number, text = "self >= 1", text+" && self.matches('[1-9]')"
	}
	message := fmt.Sprintf("expected a %s, at least %s", f.Takes(), write(f.Min))
	switch {
	case f.Max > 0:
		number += " && self <= " + write(f.Max)
		text += fmt.Sprintf(" && quantity(self).compareTo(quantity('%s')) <= 0", write(f.Max))
		message += ", at most " + write(f.Max)
	default: // Kubernetes' library has 1<<63-1 for all that is above, so that number itself is taken only as it stands
		text += fmt.Sprintf(" && (quantity(self).isLessThan(quantity('%d')) || self == '%[1]d')", int64(1<<63-1))
	}
	return Rule{Rule: "type(self) == int ? " + number + " : " + text, Message: message}
}

// numberRule is that of a number of 64 bits or of constants, as profile's decoder reads it. What int and uint cannot convert is an
// error, which refuses too. The number of constants that there is room for is said to split, which is priced by it.
func numberRule(f *form.Field) Rule {
	shortest := f.Most
	for _, c := range profile.Constants() {
		shortest = min(shortest, len(c.Name))
	}
	return Rule{
		Rule: fmt.Sprintf("type(self) == int || (self.matches('^(0|[1-9][0-9]*)$') ? uint(self) >= 0u : self.matches('^-[0-9]+$') ? int(self) <= 0 : "+
			"self.matches('^0x0*[0-9a-fA-F]{1,16}$') || [%s].all(c, self.split('|', %d).all(n, n.trim() in c)))", constants(), (f.Most+1)/(shortest+1)),
		Message: "expected a number of 64 bits (7, -1, 0x7), or names of constants joined by |",
	}
}

// maxSyscall is above the length of every system call's name.
const maxSyscall = 64

// syscallRule looks the name up in a map, which costs the same however many names there are.
func syscallRule() Rule {
	var b strings.Builder
	for i, name := range syscalls() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("'" + name + "': 0")
	}
	const message = " is not a system call on any architecture; expected the name of a Linux system call, as in its man page"
	return Rule{Rule: "self in {" + b.String() + "}", Message: "the name" + message, MessageExpression: "self + '" + message + "'"}
}

func errnoRule() Rule {
	return Rule{
		Rule:    fmt.Sprintf("type(self) == int ? self >= 1 && self <= %d : self.matches('%s')", profile.MaxErrno, errnoPattern()),
		Message: fmt.Sprintf("is not an error; expected a name such as EPERM, or a number from 1 to %d", profile.MaxErrno),
	}
}

func cpuListRule() Rule {
	return Rule{
		Rule: fmt.Sprintf("type(self) == int ? self >= 0 && self < %d : self.matches(r'%s') && self.trim().split(',').all(r, "+
			"!r.contains('-') || int(r.split('-')[0]) <= int(r.split('-')[1]))", cgroups.MaxCPUs, cpuListPattern),
		Message: "expected a list of CPUs such as 0-3,7",
	}
}
