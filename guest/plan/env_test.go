// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMergeEnv(t *testing.T) {
	for _, test := range []struct {
		env   []string
		moved []EnvVar
		want  []string
	}{
		{nil, nil, nil},
		{[]string{"A=1"}, nil, []string{"A=1"}},
		{nil, []EnvVar{{0, "GO="}, {1, "GOB="}}, []string{"GO=", "GOB="}},
		{[]string{"A=1", "B=2"}, []EnvVar{{0, "GO="}, {2, "GOB="}}, []string{"GO=", "A=1", "GOB=", "B=2"}},
		{[]string{"A=1", "B=2"}, []EnvVar{{1, "GO="}, {2, "GOB="}}, []string{"A=1", "GO=", "GOB=", "B=2"}},
		{[]string{"A=1"}, []EnvVar{{0, "GO="}, {9, "GOB="}, {10, "GOC="}}, []string{"GO=", "A=1", "GOB=", "GOC="}},
	} {
		if diff := cmp.Diff(test.want, MergeEnv(test.env, test.moved)); diff != "" {
			t.Errorf("%q and %v (-want +got):\n%s", test.env, test.moved, diff)
		}
	}
}

// FuzzMergeEnv takes variables out at any places and puts them back.
func FuzzMergeEnv(f *testing.F) {
	f.Add("abcabc", uint64(0b101001))
	f.Add("", uint64(1))
	f.Add("x", ^uint64(0))
	f.Fuzz(func(t *testing.T, names string, out uint64) {
		var env, kept []string
		var moved []EnvVar
		for i := range min(len(names), 64) {
			v := names[i:i+1] + "=1"
			env = append(env, v)
			if out>>i&1 != 0 {
				moved = append(moved, EnvVar{i, v})
			} else {
				kept = append(kept, v)
			}
		}
		if diff := cmp.Diff(env, MergeEnv(kept, moved)); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	})
}
