// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/seccomp"
)

// brief is what inheritance decides, in one line a profile.
func brief(r *Resolved) string {
	var layers, limits []string
	for _, l := range r.Layers {
		layers = append(layers, l.Name)
	}
	for _, name := range limitNames() {
		if v := FormatLimit(r.Limits, name); v != "" {
			if r.Limits.BestEffort[name] {
				v += "?"
			}
			limits = append(limits, name+"="+v)
		}
	}
	safe := ""
	if r.Durability != DurabilityBatched || r.FlushInterval != 0 {
		safe = fmt.Sprintf(" safe=%s,%s", r.Durability, r.FlushInterval)
	}
	return fmt.Sprintf("nnp=%s layers=%v limits=%v classes=%v rules=%d delivery=%s loss=%s stall=%s%s", r.NoNewPrivileges, layers, limits, r.Classes, len(r.Audit), r.Delivery, r.OnLoss, r.StallTimeout, safe)
}

func resolve(t *testing.T, s *Set, name string) *Resolved {
	t.Helper()
	r, err := s.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInheritance(t *testing.T) {
	const deny = `seccomp: {deny: [{syscalls: [acct]}]}`
	for _, c := range []struct {
		name string
		text string
		want string // of the profile x
	}{
		{"nothing stated", profiles("x", "{}"), "nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"no parent may say what it likes", profiles("x", "{noNewPrivileges: inherit, audit: {onLoss: continue}}"),
			"nnp=inherit layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=continue stall=0s"},
		{"the parent's, where nothing is stated", profiles("p", "{noNewPrivileges: inherit, "+deny+", limits: {pids: 9}, audit: {classes: [exec], onLoss: continue, stallTimeout: 3s}}", "x", "{extends: [p]}"),
			"nnp=inherit layers=[p] limits=[pids=9] classes=[exec] rules=1 delivery=ordered loss=continue stall=3s"},
		{"the stricter of both", profiles("p", "{noNewPrivileges: inherit, "+deny+", limits: {pids: 9, cpu: 1}, audit: {classes: [exec], onLoss: continue, stallTimeout: 3s}}",
			"x", "{extends: [p], noNewPrivileges: true, "+deny+", limits: {pids: 99, cpu: 500m, memory: 1Gi}, audit: {classes: [mount], syscalls: [acct], onLoss: kill, stallTimeout: 1s}}"),
			"nnp=true layers=[p x] limits=[cpu=500m memory=1Gi pids=9] classes=[exec mount] rules=3 delivery=ordered loss=kill stall=1s"},
		{"a shorter stall is stricter if it kills", profiles("p", "{audit: {stallTimeout: 3s}}", "x", "{extends: [p], audit: {stallTimeout: 9s}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=3s"},
		{"a longer one if it loses events", profiles("p", "{audit: {onLoss: continue, stallTimeout: 3s}}", "x", "{extends: [p], audit: {stallTimeout: 9s}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=continue stall=9s"},
		{"buffered only if nobody says ordered", profiles("p", "{audit: {delivery: buffered}}", "q", "{audit: {delivery: buffered}}", "x", "{extends: [p, q]}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=buffered loss=kill stall=0s"},
		{"ordered wins", profiles("p", "{audit: {delivery: buffered}}", "q", "{}", "x", "{extends: [p, q], audit: {onLoss: kill}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"ordered over buffered", profiles("p", "{audit: {delivery: buffered}}", "x", "{extends: [p], audit: {delivery: ordered}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"synced wins, and the shorter interval", profiles("p", "{audit: {durability: synced, flushInterval: 2s}}", "q", "{audit: {flushInterval: 500ms}}", "x", "{extends: [p, q], audit: {flushInterval: 5s}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s safe=synced,500ms"},
		{"a child that is synced", profiles("p", "{audit: {flushInterval: 2s}}", "x", "{extends: [p], audit: {durability: synced}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s safe=synced,2s"},
		{"synced is ordered", profiles("p", "{audit: {delivery: buffered}}", "x", "{extends: [p], audit: {durability: synced}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s safe=synced,0s"},
		{"batched, and longer, by replace", profiles("p", "{audit: {durability: synced, flushInterval: 2s}}", "x", "{extends: [p], replace: true, audit: {durability: batched, flushInterval: 5s}}"),
			"nnp=true layers=[] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s safe=batched,5s"},
		{"buffered by replace", profiles("p", "{audit: {delivery: ordered, classes: [exec]}}", "x", "{extends: [p], replace: true, audit: {delivery: buffered}}"),
			"nnp=true layers=[] limits=[] classes=[exec] rules=1 delivery=buffered loss=kill stall=0s"},
		{"several parents", profiles("p", "{noNewPrivileges: inherit, limits: {pids: 9}, audit: {classes: [exec]}}", "q", "{limits: {pids: 5, memory: 1Gi}, "+deny+"}", "x", "{extends: [p, q]}"),
			"nnp=true layers=[q] limits=[memory=1Gi pids=5] classes=[exec] rules=1 delivery=ordered loss=kill stall=0s"},
		{"a diamond's top counts once", profiles("top", "{"+deny+"}", "p", "{extends: [top], "+deny+"}", "q", "{extends: [top], "+deny+"}", "x", "{extends: [p, q], "+deny+"}"),
			"nnp=true layers=[top p q x] limits=[] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"best effort only if all say so", profiles("p", "{limits: {pids: 9, cpu: 1, bestEffort: [pids, cpu]}}", "x", "{extends: [p], limits: {pids: 5, cpu: 1, bestEffort: [cpu]}}"),
			"nnp=true layers=[] limits=[cpu=1? pids=5] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"replace takes the place of what it states", profiles(
			"p", "{"+deny+", limits: {pids: 9, cpu: 1}, audit: {classes: [exec], syscalls: [acct], stallTimeout: 3s}}",
			"x", "{extends: [p], replace: true, noNewPrivileges: inherit, limits: {pids: 99}, audit: {onLoss: continue}}"),
			"nnp=inherit layers=[p] limits=[cpu=1 pids=99] classes=[exec] rules=2 delivery=ordered loss=continue stall=3s"},
		{"and nothing else", profiles(
			"p", "{"+deny+", limits: {pids: 9}, audit: {classes: [exec], syscalls: [acct], stallTimeout: 3s}}",
			"x", "{extends: [p], replace: true, "+deny+", audit: {classes: [mount], stallTimeout: 9s}}"),
			"nnp=true layers=[x] limits=[pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=9s"},
		{"replace holds on one way only", profiles(
			"top", "{"+deny+", limits: {pids: 9}}", "p", "{extends: [top], replace: true, limits: {pids: 99}}", "q", "{extends: [top]}", "x", "{extends: [p, q]}"),
			"nnp=true layers=[top] limits=[pids=9] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
		{"sets and devices come together", profiles(
			"p", `{limits: {cpuset: "0-3", hugepages: {2MB: 1Gi}, io: {/dev/a: {readBPS: 1Mi}}}}`,
			"x", `{extends: [p], limits: {cpuset: "2-5", hugepages: {1GB: 1Gi}, io: {/dev/a: {readBPS: 2Mi, writeIOPS: 5}, "8:0": {readIOPS: 1}}}}`),
			"nnp=true layers=[] limits=[cpuset=2-3 hugepages=1GB: 1Gi, 2MB: 1Gi io=/dev/a: readBPS 1Mi writeIOPS 5, 8:0: readIOPS 1] classes=[] rules=0 delivery=ordered loss=kill stall=0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := brief(resolve(t, load(t, c.text), "x")); got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestProvenance(t *testing.T) {
	s := load(t, profiles(
		"p", "{limits: {pids: 9, cpu: 1, memory: 1Gi}, seccomp: {deny: [{id: a, reason: why, syscalls: [acct]}]}, audit: {classes: [exec]}}",
		"x", "{extends: [p], limits: {pids: 5, cpu: 2}, seccomp: {kill: [{syscalls: [acct]}]}, audit: {classes: [exec, mount], stallTimeout: 1s}}"))
	got := resolve(t, s, "x").Provenance
	at := func(profile string, line int) Source { return Source{profile, "/p/p.yaml", line} }
	want := Provenance{
		Profiles:        []Source{at("p", 4), at("x", 9)},
		NoNewPrivileges: at("p", 4),
		Rules: map[RuleKey]RuleSource{
			{"p", seccomp.ActionDeny, "a"}:      {at("p", 5), "why"},
			{"x", seccomp.ActionKill, "kill-1"}: {at("x", 10), ""},
		},
		Limits:       map[string][]Source{"pids": {at("x", 10)}, "cpu": {at("p", 5)}, "memory": {at("p", 5)}},
		Classes:      map[string][]Source{"exec": {at("p", 5), at("x", 10)}, "mount": {at("x", 10)}},
		Syscalls:     map[string][]Source{},
		Delivery:     at("p", 4),
		OnLoss:       at("p", 4),
		StallTimeout: at("x", 10), Durability: at("p", 4),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWithFloor(t *testing.T) {
	s := load(t, profiles(
		"floor", "{seccomp: {deny: [{syscalls: [acct]}]}, limits: {pids: 9, memory: 1Gi}, audit: {classes: [mount]}}",
		"loose", "{noNewPrivileges: inherit, seccomp: {deny: [{syscalls: [bpf]}]}, limits: {pids: 99, cpu: 1}, audit: {classes: [exec], delivery: buffered, onLoss: continue, stallTimeout: 2s}}",
		"safe", "{audit: {durability: synced}}",
		"over", "{extends: [floor], seccomp: {deny: [{syscalls: [bpf]}]}}"))
	floor := resolve(t, s, "floor")
	for name, want := range map[string]string{
		"loose":       "nnp=true layers=[floor loose] limits=[cpu=1 memory=1Gi pids=9] classes=[exec mount] rules=2 delivery=ordered loss=kill stall=2s",
		"safe":        "nnp=true layers=[floor] limits=[memory=1Gi pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=0s safe=synced,0s",
		"over":        "nnp=true layers=[floor over] limits=[memory=1Gi pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=0s",
		"floor":       "nnp=true layers=[floor] limits=[memory=1Gi pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=0s",
		"passthrough": "nnp=true layers=[floor] limits=[memory=1Gi pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=0s",
	} {
		r := resolve(t, s, name)
		before := brief(r)
		got := r.WithFloor(floor)
		if brief(got) != want || got.Name != name || got.Passthrough {
			t.Errorf("%s:\ngot  %s\nwant %s", name, brief(got), want)
		}
		if brief(r) != before || brief(floor) != "nnp=true layers=[floor] limits=[memory=1Gi pids=9] classes=[mount] rules=1 delivery=ordered loss=kill stall=0s" {
			t.Errorf("%s: an operand changed", name)
		}
		// What has the floor in it already is not changed by it.
		if inIt := name == "floor" || name == "over"; (got.Digest == r.Digest) != inIt || (got.Digest == floor.Digest) != (name == "floor") {
			t.Errorf("%s: digests %.8s, %.8s over %.8s", name, got.Digest, r.Digest, floor.Digest)
		}
		for _, l := range got.Layers {
			for _, rule := range l.Deny {
				if _, ok := got.Provenance.Rules[RuleKey{l.Name, seccomp.ActionDeny, rule.ID}]; !ok {
					t.Errorf("%s: %s/%s comes from nowhere", name, l.Name, rule.ID)
				}
			}
		}
	}
	loose := resolve(t, s, "loose")
	if loose.WithFloor(nil) != loose || loose.WithFloor(resolve(t, s, Passthrough)) != loose {
		t.Error("no floor must change nothing")
	}
}

func TestDigest(t *testing.T) {
	const a = `{limits: {pids: 9, hugepages: {2MB: 1Gi, 1GB: 2Gi}}, seccomp: {deny: [{syscalls: [acct, bpf], reason: x}]}}`
	base := resolve(t, load(t, profiles("x", a)), "x").Digest
	if len(base) != 64 {
		t.Fatalf("digest %q", base)
	}
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"the same again":         {profiles("x", a), true},
		"comments, other lines":  {"# c\n\n" + profiles("x", a), true},
		"order of fields":        {profiles("x", `{seccomp: {deny: [{reason: y, syscalls: [bpf, acct]}]}, limits: {hugepages: {1GB: 2048Mi, 2MB: 1024Mi}, pids: "9"}}`), true},
		"a description":          {profiles("x", strings.Replace(a, "{", "{description: d, ", 1)), true},
		"another limit":          {profiles("x", strings.Replace(a, "pids: 9", "pids: 8", 1)), false},
		"another call":           {profiles("x", strings.Replace(a, "bpf", "mount", 1)), false},
		"another error":          {profiles("x", strings.Replace(a, "reason: x", "errno: ENOSYS", 1)), false},
		"a rule's id":            {profiles("x", strings.Replace(a, "reason: x", "id: x", 1)), false},
		"kill instead of deny":   {profiles("x", strings.Replace(a, "deny", "kill", 1)), false},
		"best effort":            {profiles("x", strings.Replace(a, "pids: 9", "pids: 9, bestEffort: [pids]", 1)), false},
		"an audit class":         {profiles("x", strings.Replace(a, "{", "{audit: {classes: [exec]}, ", 1)), false},
		"when a call goes on":    {profiles("x", strings.Replace(a, "{", "{audit: {delivery: buffered}, ", 1)), false},
		"what holds anyhow":      {profiles("x", strings.Replace(a, "{", "{audit: {durability: batched}, ", 1)), true},
		"when it is safe":        {profiles("x", strings.Replace(a, "{", "{audit: {durability: synced}, ", 1)), false},
		"how long it is not":     {profiles("x", strings.Replace(a, "{", "{audit: {flushInterval: 2s}, ", 1)), false},
		"what happens on a loss": {profiles("x", strings.Replace(a, "{", "{audit: {onLoss: continue}, ", 1)), false},
	} {
		if got := resolve(t, load(t, c.text), "x").Digest; (got == base) != c.same {
			t.Errorf("%s: same digest: %v", name, got == base)
		}
	}
	other, err := Load(files("q.yaml", profiles("x", a)), "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if resolve(t, other, "x").Digest != base {
		t.Error("the file's name changes the digest")
	}
}

func TestResolveUnknown(t *testing.T) {
	_, err := load(t, "").Resolve("baselin")
	if err == nil || err.Error() != `there is no profile "baselin"; did you mean baseline?` {
		t.Errorf("got %v", err)
	}
}

func TestPassthrough(t *testing.T) {
	r := resolve(t, load(t, ""), Passthrough)
	if !r.Passthrough || len(r.Layers)+len(r.Audit) != 0 || !r.Limits.IsZero() || r.NoNewPrivileges != NNPInherit || r.Digest == "" {
		t.Errorf("%+v", r)
	}
}

// Diamonds upon diamonds have exponentially many ways to the top: who goes them all does not come back.
func TestResolveIsQuick(t *testing.T) {
	pairs := []string{"p0", "{}", "q0", "{}"}
	for i := range 200 {
		for _, n := range []string{"p", "q"} {
			pairs = append(pairs, fmt.Sprintf("%s%d", n, i+1), fmt.Sprintf("{extends: [p%d, q%d]}", i, i))
		}
	}
	if r := resolve(t, load(t, profiles(pairs...)), "p200"); len(r.Provenance.Profiles) != 401 {
		t.Errorf("%d documents", len(r.Provenance.Profiles))
	}
}

func TestGoodDocuments(t *testing.T) {
	s := goodSet(t)
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %v", w)
	}
	for _, name := range s.Names() {
		compiles(t, resolve(t, s, name))
	}
}

func TestWarnings(t *testing.T) {
	s := load(t, profiles(
		"higher", "{extends: [baseline], limits: {pids: 5000}}",
		"lower", "{extends: [baseline], limits: {pids: 5}}",
		"replaced", "{extends: [baseline], replace: true, limits: {pids: 5000}}",
		"lifts", "{extends: [baseline], seccomp: {architectures: [SCMP_ARCH_X86], deny: [{syscalls: [ptrace], args: [{index: 0, op: eq, value: 1}]}], allow: [{syscalls: [ptrace], args: [{index: 0, op: eq, value: 16}]}]}}",
		"useless", "{seccomp: {allow: [{syscalls: [personality], args: [{index: 0, op: eq, value: 0}]}]}}",
		"lifeless", "{seccomp: {default: deny, allow: [{syscalls: [read, exit_group]}]}}",
	)+bindings("b", "{namespaces: [a], containers: [{names: [proxy], profile: passthrough}, {names: [x], images: [y], profile: passthrough}]}"))
	var text strings.Builder
	for _, w := range s.Warnings() {
		text.WriteString(w.Error() + "\n")
	}
	goldentest.Equal(t, "testdata/warnings.txt", text.String())
}
