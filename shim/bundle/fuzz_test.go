// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
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
		if got.Linux.Seccomp != nil || got.Process.Args[0] != Guest || got.Mounts[len(got.Mounts)-2].Destination != Guest {
			t.Fatalf("an edit does not show: %+v", got)
		}
		if more, err := cgroups.Clamp(got.Linux.Resources, limits, cgroups.V2); err != nil || len(more) > 0 {
			t.Fatalf("above the ceilings: %+v, %v", more, err)
		}
	})
}

func FuzzEditProcess(f *testing.F) {
	f.Add([]byte(`{"args":["sh"],"env":["GOGC=1","HOME="],"user":{"uid":5},"capabilities":{"bounding":["CAP_CHOWN"]}}`))
	f.Add([]byte(`{"args":["sh"],"noNewPrivileges":false,"noNewprivileges":true}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e everything
		out, err := EditProcess(raw, MoveGoEnv(&e.Moved), NoNewPrivileges(), WidenCapabilities(nil, &e.Was), PrefixArgs("t"))
		if err != nil {
			return
		}
		var p specs.Process
		if err := json.Unmarshal(out, &p); err != nil {
			return
		}
		if len(p.Args) < 5 || p.Args[0] != Guest || p.Args[2] != "t" || !p.NoNewPrivileges {
			t.Fatalf("%s became %s", raw, out)
		}
	})
}
