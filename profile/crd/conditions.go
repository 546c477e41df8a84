// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"strings"

	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

// The rules about conditions see a value that is a number from 0 to 1<<62, or one constant. CEL has no bit operations and reads no
// hexadecimal numbers, so what is written in other ways passes here.

// number is the CEL expression of a field's value, or -1 where it is not seen. c is what constants makes.
func number(field string) string {
	return fmt.Sprintf("(type(%[1]s) == int ? (int(%[1]s) <= %[2]d ? int(%[1]s) : -1) : %[1]s in c ? c[%[1]s] : "+
		"string(%[1]s).matches('^[0-9]{1,18}$') ? int(%[1]s) : -1)", field, int64(1)<<62)
}

// constants is a map of CEL with the value of each constant.
func constants() string {
	var entries []string
	for _, c := range profile.Constants() {
		entries = append(entries, fmt.Sprintf("'%s': %d", c.Name, c.Value))
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

// isZero is the CEL expression for a field that is 0 in one of the ways in which people write it.
func isZero(field string) string {
	zeros := []string{"0", "-0", "0x0"}
	for _, c := range profile.Constants() {
		if c.Value == 0 {
			zeros = append(zeros, c.Name)
		}
	}
	return fmt.Sprintf("(%[1]s == 0 || %[1]s in [%[2]s])", field, quoted(zeros))
}

// conditionRules are about one condition, as seccomp.Cond.Validate.
func conditionRules() []Rule {
	var bits []string
	for i := range 63 {
		bits = append(bits, fmt.Sprint(uint64(1)<<i))
	}
	return []Rule{{
		Rule:    fmt.Sprintf("self.op == '%s' ? has(self.mask) && !%s : !has(self.mask) || %[2]s", seccomp.OpMaskedEqual, isZero("self.mask")),
		Message: "mask and masked_eq need each other: masked_eq without a mask compares nothing, and the others take none",
	}, {
		Rule: fmt.Sprintf("self.op != '%s' || !has(self.mask) || [%s].all(c, [[%s, %s]].all(n, n[0] < 0 || n[1] < 0 || [%s].all(b, n[0] / b %% 2 == 0 || n[1] / b %% 2 == 1)))",
			seccomp.OpMaskedEqual, constants(), number("self.value"), number("self.mask"), strings.Join(bits, ", ")),
		Message: "value has bits outside of mask: it can never match",
	}, {
		Rule:    fmt.Sprintf("!(self.op in ['%s', '%s']) || !%s", seccomp.OpLess, seccomp.OpGreaterEqual, isZero("self.value")),
		Message: "nothing is less than 0: the condition holds never, or always; expected a value that tells something apart",
	}, {
		Rule: fmt.Sprintf("!(self.op in ['%s', '%s']) || self.value != -1 && !(self.value in ['-1', '0xffffffffffffffff', '18446744073709551615'])",
			seccomp.OpGreater, seccomp.OpLessEqual),
		Message: "nothing is greater than the largest number: the condition holds never, or always; expected a value that tells something apart",
	}}
}

// contradictionRule is about all conditions of a rule, as seccomp.Rule.Validate. Each becomes a list: argument, least and greatest
// value, the value that ne excludes, the value that eq wants; -1 where there is none.
func contradictionRule() Rule {
	const all = int64(1<<63 - 1)
	forms := []string{
		fmt.Sprintf("n < 0 || a.op == '%s' ? [a.index, 0, %d, -1, -1]", seccomp.OpMaskedEqual, all),
		fmt.Sprintf("a.op == '%s' ? [a.index, n, n, -1, n]", seccomp.OpEqual),
		fmt.Sprintf("a.op == '%s' ? [a.index, 0, %d, n, -1]", seccomp.OpNotEqual, all),
		fmt.Sprintf("a.op == '%s' ? [a.index, 0, n - 1, -1, -1]", seccomp.OpLess),
		fmt.Sprintf("a.op == '%s' ? [a.index, 0, n, -1, -1]", seccomp.OpLessEqual),
		fmt.Sprintf("a.op == '%s' ? [a.index, n + 1, %d, -1, -1]", seccomp.OpGreater, all),
		fmt.Sprintf("[a.index, n, %d, -1, -1]", all),
	}
	return Rule{
		Rule: fmt.Sprintf("[%s].all(c, [self.map(a, [%s].map(n, %s)[0])].all(l, l.all(p, l.all(q, p[0] != q[0] || p[1] <= q[2] && (p[3] < 0 || p[3] != q[4])))))",
			constants(), number("a.value"), strings.Join(forms, " : ")),
		Message: "the rule can never match: two conditions on one argument cannot hold together",
	}
}
