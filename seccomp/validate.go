// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
)

// Bounds on what is compiled, well above every profile that is meant seriously.
const (
	maxLayers    = 64
	maxRules     = 8192  // of one layer, or of the audit
	maxRuleNames = 1024  // calls that one rule names
	maxConds     = 64    // of one rule
	maxText      = 256   // bytes of an id or a name
	maxErrno     = 4095  // MAX_ERRNO of <linux/err.h>
	eperm        = 1     // the same on every architecture that Linux has
	enosys       = 38    // on ours
	maxPodNames  = 65536 // names in all the entries of a pod's profile
)

// Validate says what is wrong with a rule: no or unknown calls, a condition that cannot be, conditions that
// contradict each other. What it accepts, Compile accepts in every list of every layer.
func (r Rule) Validate() error {
	if r.Errno > maxErrno {
		return fmt.Errorf("errno %d: the largest is %d", r.Errno, maxErrno)
	}
	return validateRule(r.ID, r.Syscalls, r.Args)
}

// Validate says what is wrong with an audit rule, as Rule.Validate does.
func (r AuditRule) Validate() error {
	if len(r.Class) > maxText {
		return fmt.Errorf("class: longer than %d bytes", maxText)
	}
	return validateRule(r.ID, r.Syscalls, r.Args)
}

func validateRule(id string, names []string, args []Cond) error {
	if len(id) > maxText {
		return fmt.Errorf("rule id: longer than %d bytes", maxText)
	}
	if len(names) == 0 {
		return errors.New("no system call is named")
	}
	if len(names) > maxRuleNames || len(args) > maxConds {
		return fmt.Errorf("%d calls with %d conditions: at most %d and %d", len(names), len(args), maxRuleNames, maxConds)
	}
	for _, n := range names {
		if !KnownSyscall(n) {
			if s := SuggestSyscall(n); s != "" {
				return fmt.Errorf("unknown system call %q: did you mean %q?", n, s)
			}
			return fmt.Errorf("unknown system call %q", n)
		}
	}
	for i, c := range args {
		if err := c.Validate(); err != nil {
			return fmt.Errorf("args[%d]: %w", i, err)
		}
	}
	return contradiction(args)
}

// Validate says what is wrong with a condition alone.
func (c Cond) Validate() error {
	if c.Index > 5 {
		return fmt.Errorf("index %d: a call has arguments 0 to 5", c.Index)
	}
	if _, err := ParseOp(string(c.Op)); err != nil {
		return err
	}
	switch {
	case c.Op == OpMaskedEqual && c.Mask == 0:
		return errors.New("masked_eq without a mask compares nothing")
	case c.Op == OpMaskedEqual && c.Value&^c.Mask != 0:
		return fmt.Errorf("value %#x has bits outside of mask %#x: it can never match", c.Value, c.Mask)
	case c.Op != OpMaskedEqual && c.Mask != 0:
		return fmt.Errorf("mask is for masked_eq only, not for %s", c.Op)
	case c.Op == OpLess && c.Value == 0:
		return errors.New("nothing is less than 0: it can never match")
	case c.Op == OpGreater && c.Value == ^uint64(0):
		return errors.New("nothing is greater than the largest number: it can never match")
	}
	return nil
}

// contradiction finds conditions on one argument that cannot hold together. It finds what people write, not
// everything that could be.
func contradiction(args []Cond) error {
	for i, a := range args {
		for j, b := range args[:i] {
			if a.Index == b.Index && excludes(a, b) {
				return fmt.Errorf("args[%d] and args[%d]: both cannot hold for argument %d", j, i, a.Index)
			}
		}
	}
	return nil
}

func excludes(a, b Cond) bool {
	switch {
	case a.Op == OpEqual:
		return !b.holds(a.Value)
	case b.Op == OpEqual:
		return !a.holds(b.Value)
	case a.Op == OpMaskedEqual && b.Op == OpMaskedEqual:
		return (a.Value^b.Value)&a.Mask&b.Mask != 0
	}
	alo, ahi, aok := a.bounds()
	blo, bhi, bok := b.bounds()
	return aok && bok && (alo > bhi || blo > ahi)
}

// holds evaluates the condition for one value of all 64 bits.
func (c Cond) holds(v uint64) bool {
	switch c.Op {
	case OpEqual:
		return v == c.Value
	case OpNotEqual:
		return v != c.Value
	case OpLess:
		return v < c.Value
	case OpLessEqual:
		return v <= c.Value
	case OpGreater:
		return v > c.Value
	case OpGreaterEqual:
		return v >= c.Value
	}
	return v&c.Mask == c.Value
}

func (c Cond) bounds() (lo, hi uint64, ok bool) {
	switch c.Op {
	case OpLess:
		return 0, c.Value - 1, true
	case OpLessEqual:
		return 0, c.Value, true
	case OpGreater:
		return c.Value + 1, ^uint64(0), true
	case OpGreaterEqual:
		return c.Value, ^uint64(0), true
	}
	return 0, 0, false
}
