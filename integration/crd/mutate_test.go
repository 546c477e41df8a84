// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"
)

// values are what a mutation puts in the place of another.
var values = []any{
	nil, true, false, 0, 1, -1, 5, 6, 40, 133, 134, 8191, 8192, 10001, 1 << 40, "", " ", "0", "1", "-1", "00", "0x", "0x1", "0x0", "2", "500m", "1.5", "1Gi", "1.5Gi", "8Ei", "1e3", "7G", "0-3", "3-0",
	"allow", "deny", "kill", "continue", "ordered", "buffered", "inherit", "true", "yes", "EPERM", "ENOSYS", "EPREM", "AF_INET", "S_IFMT", "S_IFCHR", "CLONE_NEWNS|CLONE_VM", "a|b",
	"eq", "ne", "lt", "le", "gt", "ge", "masked_eq", "bpf", "socket", "openat", "exec", "net", "cpu", "pids", "io", "memoryHigh", "x32", "5s", "1ms", "1h", "baseline", "passthrough", "coder", "it", "pod", "A", "a b", "*", "**", "***", "/dev/vda", "8:0", "2MB",
	[]any{}, map[string]any{}, []any{"baseline"}, []any{"x", "x"}, map[string]any{"a": "b"},
}

// value returns one of the values, which is not shared.
func value(r *rand.Rand) any {
	return clone(values[r.IntN(len(values))])
}

// keys are fields that a mutation adds.
var keys = []string{
	"foo", "extends", "replace", "noNewPrivileges", "seccomp", "limits", "audit", "default", "defaultErrno", "deny", "allow", "kill", "syscalls", "args", "id", "errno", "index", "op", "value", "mask",
	"cpu", "cpuWeight", "cpuset", "memory", "memoryHigh", "swap", "pids", "hugepages", "io", "bestEffort", "readBPS", "classes", "delivery", "onLoss", "stallTimeout", "durability", "flushInterval", "namespaces", "allowed", "containers", "names", "images", "profile",
	"2MB", "/dev/vda", "sdb",
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, entry := range v {
			out[name] = clone(entry)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, entry := range v {
			out[i] = clone(entry)
		}
		return out
	default:
		return v
	}
}

// mutate changes one place in a tree.
func mutate(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		switch n := r.IntN(10); {
		case n == 0 || len(names) == 0:
			v[keys[r.IntN(len(keys))]] = value(r)
		case n == 1:
			delete(v, names[r.IntN(len(names))])
		default:
			name := names[r.IntN(len(names))]
			v[name] = mutate(r, v[name])
		}
		return v
	case []any:
		switch n := r.IntN(10); {
		case n == 0 || len(v) == 0:
			return append(v, value(r))
		case n == 1:
			return append(v, clone(v[r.IntN(len(v))]))
		case n == 2:
			i := r.IntN(len(v))
			return slices.Delete(v, i, i+1)
		default:
			i := r.IntN(len(v))
			v[i] = mutate(r, v[i])
			return v
		}
	}
	return value(r)
}

// mutant returns a document made of one of the corpus by up to three changes under its spec.
func mutant(t testing.TB, corpus []string, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	var o map[string]any
	if err := yaml.Unmarshal([]byte(corpus[r.IntN(len(corpus))]), &o); err != nil {
		t.Fatal(err)
	}
	for range 1 + r.IntN(3) {
		o["spec"] = mutate(r, o["spec"])
	}
	return toJSON(t, o)
}

func corpus(t testing.TB) []string {
	seeds := slices.Clone(good)
	for _, doc := range documents(t) {
		if node(doc) == nil {
			seeds = append(seeds, string(doc))
		}
	}
	seeds = slices.DeleteFunc(seeds, func(doc string) bool { return len(doc) > 4096 })
	slices.Sort(seeds)
	return seeds
}

// The API server and a node say the same of documents that differ a little from good ones.
func TestBothSidesAgreeOnMutants(t *testing.T) {
	s, seeds := servers(t), corpus(t)
	taken := 0
	const mutants = 1500
	for seed := range uint64(mutants) {
		text := mutant(t, seeds, seed)
		v := judge(t, s, text)
		if v.server == nil && v.cluster == nil {
			taken++
		}
		if problem := v.agree(map[string]bool{}); problem != "" {
			t.Errorf("seed %d: %s\n%.600s", seed, problem, text)
		}
	}
	if taken < mutants/10 || taken > mutants*9/10 {
		t.Errorf("%d of %d mutants are good: the test says little", taken, mutants)
	}
}

func FuzzBothSidesAgree(f *testing.F) {
	s, seeds := servers(f), corpus(f)
	for seed := range uint64(10) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		text := mutant(t, seeds, seed)
		if problem := judge(t, s, text).agree(map[string]bool{}); problem != "" {
			t.Errorf("%s\n%s", problem, text)
		}
	})
}
