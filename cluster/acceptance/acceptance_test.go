// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/profile"
)

func version(generation int64, spec string) *Version {
	return &Version{Generation: generation, Spec: json.RawMessage(spec)}
}

func agentProfile(name string, wanted, inForce *Version) Object {
	return Object{Key: Key{profile.KindProfile, name}, Wanted: wanted, InForce: inForce}
}

func binding(name string, wanted, inForce *Version) Object {
	return Object{Key: Key{profile.KindBinding, name}, Wanted: wanted, InForce: inForce}
}

func created(at int64, o Object) Object {
	o.Created = time.Unix(at, 0)
	return o
}

func TestDecide(t *testing.T) {
	const (
		base    = `{"extends":["baseline"]}`
		pids100 = `{"extends":["baseline"],"limits":{"pids":100}}`
		broken  = `{"extends":["baseline"],"limits":{"pids":-1}}`
		child   = `{"extends":["parent"],"limits":{"pids":80}}`
		toA     = `{"namespaces":["a"],"default":"parent"}`
		toB     = `{"namespaces":["b"],"default":"parent"}`
		kill    = `{"audit":{"onLoss":"kill"}}`
		goOn    = `{"audit":{"onLoss":"continue"}}`

		childGoesOn = `{"extends":["parent"],"audit":{"onLoss":"continue"}}`

		none = -1 // nothing is in force
	)
	for name, tt := range map[string]struct {
		objects []Object
		want    []int64  // generation in force
		refused []string // a part of the reason, or nothing
	}{
		"nothing": {},
		"the first version": {
			[]Object{agentProfile("parent", version(1, base), nil)},
			[]int64{1}, []string{""},
		},
		"nothing changes": {
			[]Object{agentProfile("parent", version(3, base), version(2, base))},
			[]int64{3}, []string{""},
		},
		"an invalid new version": {
			[]Object{agentProfile("parent", version(2, broken), version(1, base)), agentProfile("other", version(1, base), nil)},
			[]int64{1, 1}, []string{"spec.limits.pids", ""},
		},
		"an invalid first version": {
			[]Object{agentProfile("parent", version(1, broken), nil)},
			[]int64{none}, []string{"spec.limits.pids"},
		},
		"a child before its parent": {
			[]Object{created(1, agentProfile("child", version(1, child), nil)), created(2, agentProfile("parent", version(1, base), nil))},
			[]int64{1, 1}, []string{"", ""},
		},
		"a child of no parent": {
			[]Object{agentProfile("child", version(1, child), nil)},
			[]int64{none}, []string{`there is no profile "parent"`},
		},
		"a child and its parent beside a broken one": {
			[]Object{created(1, agentProfile("child", version(1, child), nil)), created(2, agentProfile("broken", version(1, broken), nil)),
				created(3, agentProfile("parent", version(1, pids100), nil))},
			[]int64{1, none, 1}, []string{"", "spec.limits.pids", ""},
		},
		"a profile that its child keeps": {
			[]Object{agentProfile("parent", nil, version(1, base)), agentProfile("child", version(1, child), version(1, child))},
			[]int64{1, 1}, []string{"it is in use", ""},
		},
		"a profile that its binding keeps": {
			[]Object{agentProfile("parent", nil, version(1, base)), binding("a", version(1, toA), version(1, toA))},
			[]int64{1, 1}, []string{"it is in use", ""},
		},
		"a profile that goes with its binding": {
			[]Object{agentProfile("parent", nil, version(1, base)), binding("a", nil, version(1, toA))},
			[]int64{none, none}, []string{"", ""},
		},
		"a profile that was never in force": {
			[]Object{agentProfile("parent", nil, nil)},
			[]int64{none}, []string{""},
		},
		"two bindings for one namespace: the older": {
			[]Object{agentProfile("parent", version(1, base), version(1, base)),
				created(2, binding("newer", version(1, toA), nil)), created(1, binding("older", version(1, toA), nil))},
			[]int64{1, none, 1}, []string{"", "already has the binding", ""},
		},
		"a binding into the namespace of another": {
			[]Object{agentProfile("parent", version(1, base), version(1, base)),
				created(1, binding("x", version(2, toB), version(1, toA))), created(2, binding("y", version(1, toB), version(1, toB)))},
			[]int64{1, 1, 1}, []string{"", "already has the binding", ""},
		},
		"two bindings that change places": {
			[]Object{agentProfile("parent", version(1, base), version(1, base)),
				binding("x", version(2, toB), version(1, toA)), binding("y", version(2, toA), version(1, toB))},
			[]int64{1, 2, 2}, []string{"", "", ""},
		},
		"a parent whose tighter version its child loosens": {
			[]Object{agentProfile("parent", version(2, kill), version(1, goOn)), agentProfile("child", version(1, childGoesOn), version(1, childGoesOn))},
			[]int64{1, 1}, []string{"AgentProfile/child: spec.audit.onLoss: continue would loosen kill", ""},
		},
		"what is in force is broken, and mended": {
			[]Object{agentProfile("parent", version(2, base), version(1, broken))},
			[]int64{2}, []string{""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			verdicts, err := Decide(tt.objects)
			if err != nil {
				t.Fatal(err)
			}
			if len(verdicts) != len(tt.objects) {
				t.Fatalf("%d verdicts for %d objects", len(verdicts), len(tt.objects))
			}
			for i, v := range verdicts {
				got := int64(none)
				if v.InForce != nil {
					got = v.InForce.Generation
				}
				if v.Key != tt.objects[i].Key || got != tt.want[i] {
					t.Errorf("%s is in force in generation %d, want %d", v.Key, got, tt.want[i])
				}
				if (v.Refused == nil) != (tt.refused[i] == "") || v.Refused != nil && !strings.Contains(v.Refused.Error(), tt.refused[i]) {
					t.Errorf("%s is refused for %v, want %q", v.Key, v.Refused, tt.refused[i])
				}
				if inForce := v.InForce != nil && v.Kind == profile.KindProfile; (v.Digest != "") != inForce {
					t.Errorf("%s has the digest %q", v.Key, v.Digest)
				}
			}
		})
	}
}

func TestUsedBy(t *testing.T) {
	verdicts, err := Decide([]Object{
		agentProfile("parent", version(1, `{"extends":["baseline"]}`), nil),
		agentProfile("child", version(1, `{"extends":["parent"]}`), nil),
		binding("b", version(1, `{"namespaces":["b"],"default":"child","allowed":["parent"]}`), nil),
		binding("a", version(1, `{"namespaces":["a"],"default":"baseline","containers":[{"names":["x"],"profile":"parent"}]}`), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(verdicts[0].UsedBy), "[AgentProfile/child ProfileBinding/a ProfileBinding/b]"; got != want {
		t.Errorf("the parent is used by %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(verdicts[1].UsedBy), "[ProfileBinding/b]"; got != want {
		t.Errorf("the child is used by %s, want %s", got, want)
	}
}

// A set in force that is not valid, and that nothing mends, is left as it is.
func TestBrokenInForce(t *testing.T) {
	broken := version(1, `{"limits":{"pids":-1}}`)
	_, err := Decide([]Object{agentProfile("old", broken, broken), agentProfile("new", version(1, `{"extends":["baseline"]}`), nil)})
	if err == nil || !strings.Contains(err.Error(), "AgentProfile/old") {
		t.Errorf("the error is %v", err)
	}
}

// Whatever people want in turn: what is in force is always valid, a decision that is made again changes nothing, and what is wanted
// and not in force is refused with a reason.
func TestDecideAlwaysValid(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 0))
		objects := map[Key]*Object{}
		for step := range 12 {
			for range 1 + r.IntN(3) {
				change(r, objects, int64(step))
			}
			list := make([]Object, 0, len(objects))
			for _, o := range objects {
				list = append(list, *o)
			}
			verdicts, err := Decide(list)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			for _, v := range verdicts {
				o := objects[v.Key]
				if inForce := v.InForce.same(o.Wanted); inForce != (v.Refused == nil) {
					t.Fatalf("seed %d, step %d: %s: wanted is in force: %v, refused: %v", seed, step, v.Key, inForce, v.Refused)
				}
				if o.InForce = v.InForce; o.InForce == nil && o.Wanted == nil {
					delete(objects, v.Key)
				}
			}
			for i := range list {
				list[i].InForce = verdicts[i].InForce
			}
			again, err := Decide(list)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range again {
				if !v.InForce.same(verdicts[i].InForce) {
					t.Fatalf("seed %d, step %d: %s: the second decision is another", seed, step, v.Key)
				}
			}
		}
	}
}

// change lets somebody want something of one of a few objects, half of it impossible.
func change(r *rand.Rand, objects map[Key]*Object, now int64) {
	names := []string{"p", "q", "r"}
	pick := func() string { return names[r.IntN(len(names))] }
	key, spec := Key{profile.KindProfile, pick()}, ""
	if r.IntN(3) == 0 {
		key.Kind = profile.KindBinding
		spec = fmt.Sprintf(`{"namespaces":[%q],"default":%q}`, pick(), pick())
	} else {
		spec = fmt.Sprintf(`{"extends":[%q],"limits":{"pids":%d}}`, append(names, "baseline", "baseline")[r.IntN(5)], r.IntN(100)-10)
	}
	o := objects[key]
	if o == nil {
		o = &Object{Key: key, Created: time.Unix(now, 0)}
		objects[key] = o
	}
	if o.Wanted = version(now, spec); r.IntN(4) == 0 {
		o.Wanted = nil
	}
}
