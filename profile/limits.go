// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
)

func (r *reader) limits(p *agentProfile, n *yaml.Node, field string) {
	l := &p.limits
	before := len(r.errs)
	quantity := func(to **int64, parse func(string) (int64, error)) func(n *yaml.Node, f string) {
		return func(n *yaml.Node, f string) { p.note(n, f); *to = r.quantity(n, f, parse) }
	}
	var bestEffort *yaml.Node
	r.mapping(n, field, limitsForm, readers{
		cgroups.CPU: quantity(&l.CPU, cgroups.ParseCPU),
		cgroups.CPUWeight: func(n *yaml.Node, f string) {
			p.note(n, f)
			if w := r.quantity(n, f, cgroups.ParseCount); w != nil {
				u := uint64(*w)
				l.CPUWeight = &u
			}
		},
		cgroups.CPUSet: func(n *yaml.Node, f string) {
			p.note(n, f)
			l.CPUSet, _ = r.number(n, f, maxCPUList, `a list of CPUs such as "0-3,7"`)
			if n.Value == "" && n.Kind == yaml.ScalarNode {
				r.fail(n, f, "is empty", `expected a list of CPUs such as "0-3,7"`)
			}
		},
		cgroups.Memory:     quantity(&l.Memory, cgroups.ParseBytes),
		cgroups.MemoryHigh: quantity(&l.MemoryHigh, cgroups.ParseBytes),
		cgroups.Swap:       quantity(&l.Swap, cgroups.ParseBytes),
		cgroups.Pids:       quantity(&l.Pids, cgroups.ParseCount),
		cgroups.Hugepages: func(n *yaml.Node, f string) {
			p.note(n, f)
			l.Hugepages = map[string]int64{}
			r.entries(n, f, limitsForm.At(cgroups.Hugepages).Most, func(k, v *yaml.Node) {
				p.note(k, f+"."+k.Value)
				if q := r.quantity(v, join(f, oneLine(k.Value)), cgroups.ParseBytes); q != nil {
					l.Hugepages[k.Value] = *q
				}
			})
		},
		cgroups.IO: func(n *yaml.Node, f string) {
			p.note(n, f)
			r.entries(n, f, limitsForm.At(cgroups.IO).Most, func(k, v *yaml.Node) {
				f := join(f, oneLine(k.Value))
				p.note(k, f)
				d := cgroups.IOLimit{Device: k.Value}
				r.mapping(v, f, limitsForm.At(cgroups.IO).Entry, readers{
					"readBPS":   func(n *yaml.Node, f string) { d.ReadBPS = r.quantity(n, f, cgroups.ParseBytes) },
					"writeBPS":  func(n *yaml.Node, f string) { d.WriteBPS = r.quantity(n, f, cgroups.ParseBytes) },
					"readIOPS":  func(n *yaml.Node, f string) { d.ReadIOPS = r.quantity(n, f, cgroups.ParseCount) },
					"writeIOPS": func(n *yaml.Node, f string) { d.WriteIOPS = r.quantity(n, f, cgroups.ParseCount) },
				})
				l.IO = append(l.IO, d)
			})
		},
		"bestEffort": func(n *yaml.Node, f string) {
			bestEffort = n
			l.BestEffort = map[string]bool{}
			for _, s := range r.strings(n, f, limitsForm.At("bestEffort"), func(s string) (msg, hint string) {
				if !cgroups.KnownResource(s) {
					return diagnostic.Quote(s) + " is not a limit", diagnostic.Expected(s, limitNames())
				}
				return "", ""
			}) {
				l.BestEffort[s] = true
			}
		},
	})
	if len(r.errs) != before {
		return
	}
	slices.SortFunc(l.IO, func(a, b cgroups.IOLimit) int { return strings.Compare(a.Device, b.Device) })
	for _, name := range slices.Sorted(maps.Keys(l.BestEffort)) {
		if !l.Has(name) {
			r.fail(bestEffort, field+".bestEffort", name+" is not stated here", "expected names of limits that stand beside it")
		}
	}
	if l.Memory != nil && l.MemoryHigh != nil && *l.MemoryHigh > *l.Memory {
		r.add(p.fault(field+"."+cgroups.MemoryHigh,
			fmt.Sprintf("%s is above memory, %s, so it is never reached", cgroups.FormatBytes(*l.MemoryHigh), cgroups.FormatBytes(*l.Memory)),
			"expected less than memory"))
	}
	r.invalidLimits(p, field, l.Validate())
}

// invalidLimits gives the faults that package cgroups finds their places.
func (r *reader) invalidLimits(p *agentProfile, field string, err error) {
	if err == nil {
		return
	}
	var faults []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		faults = joined.Unwrap()
	} else {
		faults = []error{err}
	}
	for _, err := range faults {
		var f *cgroups.FieldError
		if !errors.As(err, &f) {
			r.add(p.fault(field, err.Error(), ""))
			continue
		}
		at := field + "." + f.Resource
		if f.Key != "" {
			at += "." + oneLine(f.Key)
		}
		r.add(p.fault(at, printable(f.Reason), ""))
	}
}

func (r *reader) quantity(n *yaml.Node, field string, parse func(string) (int64, error)) *int64 {
	s, ok := r.number(n, field, maxQuantity, "a quantity such as 2, 500m or 1800Mi")
	if !ok {
		return nil
	}
	v, err := parse(s)
	if err != nil {
		r.fail(n, field, printable(err.Error()), "")
		return nil
	}
	return &v
}

func limitNames() []string {
	var names []string
	for _, r := range cgroups.Resources() {
		names = append(names, r.Name)
	}
	return names
}

// FormatLimit writes the named limit of l as a profile would, or "" if l does not state it.
func FormatLimit(l cgroups.Limits, name string) string {
	number := func(n *int64, format func(int64) string) string {
		if n == nil {
			return ""
		}
		return format(*n)
	}
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	switch name {
	case cgroups.CPU:
		return number(l.CPU, cgroups.FormatCPU)
	case cgroups.CPUWeight:
		if l.CPUWeight != nil {
			return strconv.FormatUint(*l.CPUWeight, 10)
		}
	case cgroups.CPUSet:
		return l.CPUSet
	case cgroups.Memory:
		return number(l.Memory, cgroups.FormatBytes)
	case cgroups.MemoryHigh:
		return number(l.MemoryHigh, cgroups.FormatBytes)
	case cgroups.Swap:
		return number(l.Swap, cgroups.FormatBytes)
	case cgroups.Pids:
		return number(l.Pids, count)
	case cgroups.Hugepages:
		var parts []string
		for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
			parts = append(parts, size+": "+cgroups.FormatBytes(l.Hugepages[size]))
		}
		return strings.Join(parts, ", ")
	case cgroups.IO:
		var parts []string
		for _, d := range l.IO {
			text := d.Device + ":"
			for _, v := range []struct {
				name   string
				n      *int64
				format func(int64) string
			}{{"readBPS", d.ReadBPS, cgroups.FormatBytes}, {"writeBPS", d.WriteBPS, cgroups.FormatBytes}, {"readIOPS", d.ReadIOPS, count}, {"writeIOPS", d.WriteIOPS, count}} {
				if v.n != nil {
					text += " " + v.name + " " + v.format(*v.n)
				}
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ", ")
	}
	return ""
}
