// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/kata"
)

// FuzzLoad holds whatever loads to: a round trip without edits keeps every value, and after all edits the typed
// reading of the document (runc's) has the limits, the launcher and no seccomp profile.
func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatal(err, paths)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(small))
	f.Add([]byte(`{"process":{"args":["a"],"Args":["b"]},"linux":{"resources":{"pids":{"limit":5,"LIMIT":9}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSpec(raw)
		if err != nil {
			return
		}
		if out := s.root.append(nil); !reflect.DeepEqual(number(t, raw), number(t, out)) {
			t.Fatalf("changed without an edit:\n%s\n%s", raw, out)
		}
		var e everything
		for _, edit := range e.edits() {
			if edit(s) != nil {
				return
			}
		}
		var got specs.Spec
		if err := json.Unmarshal(s.root.append(nil), &got); err != nil {
			return // a delegate refuses it as well
		}
		if got.Linux.Seccomp != nil || got.Process.Args[0] != Guest || !endsPrivate(got.Mounts) {
			t.Fatalf("an edit does not show: %+v", got)
		}
		if more, err := cgroups.Clamp(got.Linux.Resources, limits, cgroups.V2); err != nil || len(more) > 0 {
			t.Fatalf("above the ceilings: %+v, %v", more, err)
		}
	})
}

func endsPrivate(mounts []specs.Mount) bool {
	m := mounts[len(mounts)-3:]
	return m[0].Destination == Private && m[0].Type == "tmpfs" && m[1].Destination == Guest && m[2].Destination == Socket
}

// FuzzLoadInGuest does the same for a container of a VM.
func FuzzLoadInGuest(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatal(err, paths)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"process":{"args":["a"],"rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":2}]},"linux":{"resources":{"pids":{"limit":5},"unified":{"pids.max":"max"}}}}`))
	f.Add([]byte(`{"process":{"args":["a"],"oomScoreAdj":3},"annotations":{"io.kubernetes.cri.sandbox-memory":"5","io.katacontainers.x":""}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSpec(raw)
		if err != nil {
			return
		}
		var e everything
		for _, edit := range append(e.inGuest(), SizeSandbox(limits, 1<<20), OnProcess(PlanDropped(&e.plan))) {
			if edit(s) != nil {
				return
			}
		}
		var got specs.Spec
		if err := json.Unmarshal(s.root.append(nil), &got); err != nil {
			return
		}
		m, dir := got.Mounts[:3], inGuestDir
		if got.Linux.Seccomp != nil || got.Process.Args[0] != dir.GuestPath() || m[0].Destination != string(dir) ||
			m[1].Destination != dir.GuestPath() || m[2].Destination != dir.CgroupPath() {
			t.Fatalf("an edit does not show: %+v", got)
		}
		if n := *got.Linux.Resources.Pids.Limit; n <= 48 || n > *limits.Pids+48 {
			t.Fatalf("the pids limit is %d", n)
		}
		if n, err := strconv.ParseInt(got.Annotations[annotationMemory], 10, 64); err != nil || n <= 1<<20 && n != math.MaxInt64 {
			t.Fatalf("the VM gets %q bytes", got.Annotations[annotationMemory])
		}
		for key := range got.Annotations {
			if strings.HasPrefix(key, kata.Prefix) && !slices.Contains(kata.Harmless, key) {
				t.Fatalf("%s came through", key)
			}
		}
		checkResident(t, got.Process.Capabilities, true)
		e.plan.Filter, e.plan.Caps, e.plan.Env = make([]byte, plan.InsnSize), e.Was.Plan, nil // the environment has bounds of its own
		if _, err := e.plan.Append(nil); err != nil {
			t.Fatalf("%+v: %v", e.plan, err)
		}
	})
}

func FuzzEditProcess(f *testing.F) {
	f.Add([]byte(`{"args":["sh"],"env":["GOGC=1","HOME="],"user":{"uid":5},"capabilities":{"bounding":["CAP_CHOWN"]}}`))
	f.Add([]byte(`{"args":["sh"],"noNewPrivileges":false,"noNewprivileges":true}`))
	f.Add([]byte(`{"args":["sh"],"user":{"uid":5},"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL","CAP_CHOWN"]}}`))
	f.Add([]byte(`{"args":["sh"],"noNewPrivileges":true,"user":{"uid":0},"capabilities":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e everything
		out, err := EditProcess(raw, MoveGoEnv(&e.Moved), WidenCapabilities(nil, &e.Was), PrefixArgs(Guest, "t"))
		if err != nil {
			return
		}
		var before, p specs.Process
		if json.Unmarshal(raw, &before) != nil || json.Unmarshal(out, &p) != nil {
			return
		}
		if len(p.Args) < 5 || p.Args[0] != Guest || p.Args[2] != "t" {
			t.Fatalf("%s became %s", raw, out)
		}
		checkWidened(t, &before, &p, &e.Was)

		var container, was Capabilities
		if _, err := EditProcess(raw, WidenForResident(true, nil, &container)); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if out, err = EditProcess(raw, WidenForResident(true, &container, &was)); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if p = (specs.Process{}); json.Unmarshal(out, &p) != nil {
			t.Fatalf("%s became %s", raw, out)
		}
		checkResident(t, p.Capabilities, true)
		if !reflect.DeepEqual(container.Plan, was.Plan) {
			t.Fatalf("an exec that asks what its container does ends with %+v, not %+v", was.Plan, container.Plan)
		}
	})
}

// checkWidened holds the sets of after, which are those of before widened, to what the launcher makes of them: what
// the process would have had without us.
func checkWidened(t *testing.T, before, after *specs.Process, was *Capabilities) {
	t.Helper()
	if after.Capabilities == nil {
		if was.Plan != nil || was.Spec != nil || before.Capabilities != nil {
			t.Fatalf("there are none, and yet %+v", was)
		}
		return
	}
	b, a := before.Capabilities, after.Capabilities
	if b == nil {
		var err error
		if b, err = unnamed(before.User.UID); err != nil {
			t.Fatal(err)
		}
	} else if mask(b.Bounding) != was.Plan.Bounding {
		t.Fatalf("the bounding set %v becomes %#x", b.Bounding, was.Plan.Bounding)
	}
	if mask(b.Inheritable) != was.Plan.Inheritable || mask(b.Ambient) != was.Plan.Ambient {
		t.Fatalf("%+v becomes %+v", b, was.Plan)
	}
	var load, carry uint64
	if !before.NoNewPrivileges {
		load = mask(loading)
	}
	if before.User.UID != 0 {
		carry = load | mask(b.Effective)&mask(b.Bounding)
	}
	for name, set := range map[string]struct {
		before, after []string
		add           uint64
	}{
		"bounding": {b.Bounding, a.Bounding, load}, "effective": {b.Effective, a.Effective, load}, "permitted": {b.Permitted, a.Permitted, load},
		"inheritable": {b.Inheritable, a.Inheritable, carry}, "ambient": {b.Ambient, a.Ambient, carry},
	} {
		if mask(set.before)|set.add != mask(set.after) {
			t.Fatalf("%s: %v becomes %v", name, set.before, set.after)
		}
	}
}
