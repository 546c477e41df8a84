// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// WithResources makes linux.resources where it is null: delegate.Traits.NeedsResources.
func WithResources() Edit {
	return func(s *Spec) error {
		linux, err := s.root.ensure("linux")
		if err != nil {
			return err
		}
		_, err = linux.ensure("resources")
		return err
	}
}

// RaisePids raises the pids limit of the resources, where there is one, by the tasks that are Metsuke's own: they live in
// the container's cgroup. It comes after the limits are lowered, and what is remembered of the container's own limit
// ([cgroups.Remember]) must be from before: a copy of *r will do, since nothing that r points to is changed.
func RaisePids(r *specs.LinuxResources, tasks int64) {
	raised := func(n int64) int64 { return n + min(tasks, math.MaxInt64-n) }
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		n := raised(*r.Pids.Limit)
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	// Delegates write it last.
	if n, err := strconv.ParseInt(r.Unified["pids.max"], 10, 64); err == nil && n > 0 {
		r.Unified = maps.Clone(r.Unified)
		r.Unified["pids.max"] = strconv.FormatInt(raised(n), 10)
	}
}

// RaisePidsLimit is [RaisePids] for linux.resources.
func RaisePidsLimit(tasks int64) Edit {
	return func(s *Spec) error {
		linux, err := s.root.child("linux")
		if linux == nil || err != nil {
			return err
		}
		o, err := linux.child("resources")
		if o == nil || err != nil {
			return err
		}
		return editResources(o, func(r *specs.LinuxResources) error {
			RaisePids(r, tasks)
			return nil
		})
	}
}

// editResources runs an edit on the typed form of o, and then carries to o exactly what the edit changed.
func editResources(o *object, edit func(*specs.LinuxResources) error) error {
	r := &specs.LinuxResources{}
	if err := json.Unmarshal(o.append(nil), r); err != nil {
		return fmt.Errorf("%s: %w", o.path, err)
	}
	before, err := tree(r)
	if err != nil {
		return fmt.Errorf("%s: %w", o.path, err)
	}
	if err := edit(r); err != nil {
		return err
	}
	after, err := tree(r)
	if err != nil {
		return fmt.Errorf("%s: %w", o.path, err)
	}
	return patch(o, before, after)
}

// tree returns the JSON of a value as maps, slices and numbers in their spelling.
func tree(v any) (map[string]any, error) {
	raw, err := marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var out map[string]any
	return out, dec.Decode(&out)
}

// patch carries the differences from before to after into o. It visits equal members too: one that the typed
// form read in another case than o has it is an error (see object), also where nothing had to be changed.
func patch(o *object, before, after map[string]any) error {
	names := slices.Sorted(maps.Keys(before))
	for name := range maps.Keys(after) {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		m, err := o.find(name)
		if err != nil {
			return err
		}
		was, is := before[name], after[name]
		switch {
		case is == nil:
			o.remove(name)
		case m == nil && reflect.DeepEqual(was, is):
			// A field that the typed form always writes.
		case m == nil || was == nil:
			err = o.set(name, is)
		default:
			err = patchMember(o, name, was, is)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func patchMember(o *object, name string, was, is any) error {
	switch is := is.(type) {
	case map[string]any:
		if was, ok := was.(map[string]any); ok {
			c, err := o.child(name)
			if err != nil {
				return err
			}
			return patch(c, was, is)
		}
	case []any:
		if was, ok := was.([]any); ok && len(is) >= len(was) {
			return patchList(o, name, was, is)
		}
	}
	if reflect.DeepEqual(was, is) {
		return nil
	}
	return o.set(name, is)
}

// patchList keeps the elements that are there and appends the new ones.
func patchList(o *object, name string, was, is []any) error {
	var items []json.RawMessage
	if _, err := o.get(name, &items); err != nil {
		return err
	}
	if len(items) != len(was) {
		return o.set(name, is)
	}
	touched := len(is) != len(was)
	for i := range was {
		a, okA := was[i].(map[string]any)
		b, okB := is[i].(map[string]any)
		if !okA || !okB {
			continue
		}
		item, err := parseObject(fmt.Sprintf("%s.%s[%d]", o.path, name, i), items[i])
		if err != nil {
			return err
		}
		if err := patch(item, a, b); err != nil {
			return err
		}
		if !reflect.DeepEqual(a, b) {
			items[i], touched = item.append(nil), true
		}
	}
	for _, v := range is[len(was):] {
		raw, err := marshal(v)
		if err != nil {
			return err
		}
		items = append(items, raw)
	}
	if !touched {
		return nil
	}
	return o.set(name, items)
}
