// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/profile/form"
	"metsuke.dev/metsuke/seccomp"
)

// ReservedRuleIDs returns the ids that package seccomp gives to what no rule decides.
func ReservedRuleIDs() []string {
	return []string{seccomp.RuleDefault, seccomp.RuleForeignABI, seccomp.RuleBadArch, seccomp.RuleNewer}
}

func (r *reader) seccomp(p *agentProfile, n *yaml.Node, field string) {
	p.note(n, field)
	l := &seccomp.Layer{Name: p.name}
	p.layer, p.reasons, p.ruleAt = l, map[ruleKey]string{}, map[ruleKey]string{}
	var errnoAt *yaml.Node
	rules := func(action seccomp.Action, to *[]seccomp.Rule) func(n *yaml.Node, field string) {
		return func(n *yaml.Node, field string) {
			ids := map[string]int{}
			r.list(n, field, seccompForm.At(action.String()).Most, func(n *yaml.Node, field string) {
				rule, reason := r.rule(n, field, action)
				if rule.ID == "" {
					rule.ID = action.String() + "-" + strconv.Itoa(len(*to)+1)
				}
				if first, twice := ids[rule.ID]; twice {
					r.fail(n, field+".id", diagnostic.Quote(rule.ID)+" is the id of two rules", fmt.Sprintf("the first is on line %d", first))
				}
				ids[rule.ID] = n.Line
				p.note(n, field)
				k := ruleKey{action, rule.ID}
				p.ruleAt[k] = field
				if reason != "" {
					p.reasons[k] = reason
				}
				*to = append(*to, rule)
			})
		}
	}
	r.mapping(n, field, seccompForm, readers{
		"default": func(n *yaml.Node, f string) {
			if r.word(n, f, seccompForm.At("default").WordNames()...) == "deny" {
				l.Default = seccomp.ActionDeny
			}
		},
		"defaultErrno":  func(n *yaml.Node, f string) { errnoAt, l.DefaultErrno = n, r.errno(n, f) },
		"deny":          rules(seccomp.ActionDeny, &l.Deny),
		"kill":          rules(seccomp.ActionKill, &l.Kill),
		"allow":         rules(seccomp.ActionAllow, &l.Allow),
		"architectures": func(n *yaml.Node, f string) { l.Architectures = r.architectures(n, f) },
	})
	if errnoAt != nil && l.Default != seccomp.ActionDeny {
		r.fail(errnoAt, field+".defaultErrno", "has no use, since nothing is denied by default", "expected default: deny beside it")
	}
}

func (r *reader) architectures(n *yaml.Node, field string) (out []seccomp.Arch) {
	for _, s := range r.strings(n, field, seccompForm.At("architectures"), func(s string) (string, string) {
		if _, err := seccomp.ParseArch(s); err != nil {
			var known []string
			for _, a := range seccomp.KnownArches() {
				known = append(known, a.Name)
			}
			return diagnostic.Quote(s) + " is not an architecture", diagnostic.Expected(s, known)
		}
		return "", ""
	}) {
		a, _ := seccomp.ParseArch(s)
		out = append(out, a)
	}
	return out
}

func (r *reader) rule(n *yaml.Node, field string, action seccomp.Action) (rule seccomp.Rule, reason string) {
	before := len(r.errs)
	of := seccompForm.At(action.String()).Entry
	r.mapping(n, field, of, readers{
		"syscalls": func(n *yaml.Node, f string) {
			rule.Syscalls = r.syscalls(n, f, of.At("syscalls"))
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				r.fail(n, f, "names no system call", "expected names of system calls")
			}
		},
		"args": func(n *yaml.Node, f string) {
			r.list(n, f, of.At("args").Most, func(n *yaml.Node, f string) { rule.Args = append(rule.Args, r.cond(n, f)) })
		},
		"id": func(n *yaml.Node, f string) {
			s, ok := r.text(n, f, 0)
			switch {
			case !ok:
			case !nameForm.MatchString(s):
				r.fail(n, f, diagnostic.Quote(s)+" is not an id", nameHint)
			case slices.Contains(ReservedRuleIDs(), s):
				r.fail(n, f, diagnostic.Quote(s)+" stands in events for what no rule decided", "expected another id")
			}
			rule.ID = s
		},
		"reason": func(n *yaml.Node, f string) { reason, _ = r.text(n, f, of.At("reason").Most) },
		"errno":  func(n *yaml.Node, f string) { rule.Errno = r.errno(n, f) },
	})
	if len(r.errs) == before {
		if err := rule.Validate(); err != nil {
			r.fail(n, field, "can never match: "+printable(err.Error()), "")
		}
	}
	return rule, reason
}

func (r *reader) syscalls(n *yaml.Node, field string, of *form.Field) []string {
	return r.strings(n, field, of, func(s string) (msg, hint string) {
		if seccomp.KnownSyscall(s) {
			return "", ""
		}
		hint = "expected the name of a Linux system call, as in its man page"
		if near := seccomp.SuggestSyscall(s); near != "" {
			hint += "; did you mean " + near + "?"
		}
		return diagnostic.Quote(s) + " is not a system call on any architecture", hint
	})
}

func (r *reader) cond(n *yaml.Node, field string) (c seccomp.Cond) {
	before := len(r.errs)
	r.mapping(n, field, condForm, readers{
		"index": func(n *yaml.Node, f string) {
			i, err := strconv.ParseUint(n.Value, 10, 8)
			if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || i > 5 {
				r.wrong(n, f, "the number of an argument, 0 to 5")
			}
			c.Index = uint8(i)
		},
		"op":    func(n *yaml.Node, f string) { c.Op = seccomp.Op(r.word(n, f, condForm.At("op").WordNames()...)) },
		"value": func(n *yaml.Node, f string) { c.Value = r.value(n, f) },
		"mask":  func(n *yaml.Node, f string) { c.Mask = r.value(n, f) },
	})
	if len(r.errs) == before {
		if err := c.Validate(); err != nil {
			r.fail(n, field, printable(err.Error()), "")
		} else if always(c) {
			r.fail(n, field, "holds for every value", "remove it, or say what it should tell apart")
		}
	}
	return c
}

func always(c seccomp.Cond) bool {
	return c.Op == seccomp.OpGreaterEqual && c.Value == 0 || c.Op == seccomp.OpLessEqual && c.Value == ^uint64(0)
}

// value reads a number or constants such as CLONE_NEWNS|CLONE_NEWPID.
func (r *reader) value(n *yaml.Node, field string) uint64 {
	s, ok := r.number(n, field, maxValue, valueDoc)
	if !ok {
		return 0
	}
	if strings.IndexAny(s, "0123456789-+") == 0 {
		v, err := parseNumber(s)
		if err != nil {
			r.fail(n, field, show(n)+" "+err.Error(), "expected "+valueDoc)
		}
		return v
	}
	var v uint64
	for name := range strings.SplitSeq(s, "|") {
		name = strings.TrimSpace(name)
		i := constantIndex(name)
		if i < 0 {
			known := make([]string, len(constants))
			for i := range constants {
				known[i] = constants[i].Name
			}
			hint := "expected " + valueDoc
			if near := diagnostic.Nearest(name, known); near != "" {
				hint += "; did you mean " + near + "?"
			}
			r.fail(n, field, diagnostic.Quote(name)+" is not a known constant", hint)
			return 0
		}
		v |= constants[i].Value
	}
	return v
}

// parseNumber reads a 64-bit number; a negative one is what a register holds for it.
func parseNumber(s string) (uint64, error) {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		if v, err := strconv.ParseUint(hex, 16, 64); err == nil {
			return v, nil
		}
		return 0, fmt.Errorf("is not a hexadecimal number of 64 bits")
	}
	if len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("begins with 0, which is decimal for some and octal for others")
	}
	if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		return v, nil
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil && s[0] == '-' {
		return uint64(v), nil
	}
	return 0, fmt.Errorf("is not a number of 64 bits")
}

// FormatArgs writes the conditions of a rule as an expression over the call's arguments, "" if there are none.
func FormatArgs(args []seccomp.Cond) string {
	signs := map[seccomp.Op]string{
		seccomp.OpEqual: "==", seccomp.OpNotEqual: "!=", seccomp.OpLess: "<", seccomp.OpLessEqual: "<=",
		seccomp.OpGreater: ">", seccomp.OpGreaterEqual: ">=",
	}
	var parts []string
	for _, c := range args {
		if c.Op == seccomp.OpMaskedEqual {
			parts = append(parts, fmt.Sprintf("arg%d & %#x == %#x", c.Index, c.Mask, c.Value))
			continue
		}
		parts = append(parts, fmt.Sprintf("arg%d %s %#x", c.Index, signs[c.Op], c.Value))
	}
	return strings.Join(parts, " && ")
}

// MaxErrno is MAX_ERRNO of <linux/err.h>, as far as the names of <asm-generic/errno.h> go.
const MaxErrno = 133

func (r *reader) errno(n *yaml.Node, field string) uint16 {
	s, ok := r.number(n, field, maxQuantity, "the name or number of an error")
	if !ok {
		return 0
	}
	if i, err := strconv.ParseUint(s, 10, 16); err == nil && i >= 1 && i <= MaxErrno {
		return uint16(i)
	}
	if i := errnoByName(s); i != 0 {
		return i
	}
	var known []string
	for _, e := range errnos() {
		known = append(known, e.Name)
	}
	hint := fmt.Sprintf("expected a name such as EPERM, or a number from 1 to %d", MaxErrno)
	if near := diagnostic.Nearest(s, known); near != "" {
		hint += "; did you mean " + near + "?"
	}
	r.fail(n, field, show(n)+" is not an error", hint)
	return 0
}

func errnoByName(s string) uint16 {
	if first, ok := secondErrnos[s]; ok {
		s = first
	}
	for i := uint16(1); i <= MaxErrno; i++ {
		if ErrnoName(i) == s {
			return i
		}
	}
	return 0
}

// ErrnoName returns the name of an error number, "EPERM" for 0 and 1 (0 in a rule means EPERM), or the number.
func ErrnoName(n uint16) string {
	if n == 0 {
		n = 1
	}
	switch name := unix.ErrnoName(unix.Errno(n)); name {
	case "":
	case "ENOTSUP":
		return "EOPNOTSUPP" // the kernel's own name of 95
	default:
		return name
	}
	return strconv.Itoa(int(n))
}
