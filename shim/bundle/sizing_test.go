// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
)

func TestSizeSandbox(t *testing.T) {
	const reserve = 16 << 20
	both := cgroups.Limits{CPU: ptr(int64(1500)), Memory: ptr(int64(1 << 30))}
	for name, c := range map[string]struct {
		limits cgroups.Limits
		in     map[string]string // by the end of the key
		want   map[string]string
	}{
		"nothing is asked":      {both, nil, map[string]string{"cpu-period": "100000", "cpu-quota": "150000", "memory": "1090519040"}},
		"zero is nothing":       {both, map[string]string{"cpu-period": "100000", "cpu-quota": "0", "cpu-shares": "2", "memory": "0"}, map[string]string{"cpu-period": "100000", "cpu-quota": "150000", "cpu-shares": "2", "memory": "1090519040"}},
		"so is less":            {both, map[string]string{"cpu-quota": "-1", "memory": "-1"}, map[string]string{"cpu-period": "100000", "cpu-quota": "150000", "memory": "1090519040"}},
		"what is asked is kept": {both, map[string]string{"cpu-period": "50000", "cpu-quota": "20000", "cpu-shares": "512", "memory": "4294967296"}, map[string]string{"cpu-period": "50000", "cpu-quota": "20000", "cpu-shares": "512", "memory": "4311744512"}},
		"memory alone":          {both, map[string]string{"memory": "268435456"}, map[string]string{"cpu-period": "100000", "cpu-quota": "150000", "memory": "285212672"}},
		"no ceilings":           {cgroups.Limits{Pids: ptr(int64(9))}, map[string]string{"cpu-shares": "2"}, map[string]string{"cpu-shares": "2"}},
		"no ceilings, asked":    {cgroups.Limits{}, map[string]string{"cpu-quota": "20000", "memory": "268435456"}, map[string]string{"cpu-quota": "20000", "memory": "285212672"}},
		"CPUs alone":            {cgroups.Limits{CPU: ptr(int64(1500))}, map[string]string{"memory": "0"}, map[string]string{"memory": "0"}},
		"CPUs alone, asked":     {cgroups.Limits{CPU: ptr(int64(1500))}, map[string]string{"cpu-quota": "20000"}, map[string]string{"cpu-quota": "20000"}},
		"more than there is":    {cgroups.Limits{}, map[string]string{"memory": strconv.Itoa(math.MaxInt64 - 1)}, map[string]string{"memory": strconv.Itoa(math.MaxInt64)}},
	} {
		t.Run(name, func(t *testing.T) {
			in := map[string]string{"a/b": "c"}
			want := map[string]string{"a/b": "c"}
			for k, v := range c.in {
				in["io.kubernetes.cri.sandbox-"+k] = v
			}
			for k, v := range c.want {
				want["io.kubernetes.cri.sandbox-"+k] = v
			}
			raw, err := marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			s := spec(t, `{"annotations":`+string(raw)+`}`)
			if err := SizeSandbox(c.limits, reserve)(s); err != nil {
				t.Fatal(err)
			}
			got, err := s.Annotations()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	s := spec(t, `{"x":1}`)
	if err := SizeSandbox(both, 0)(s); err != nil {
		t.Fatal(err)
	}
	if want := `{"x":1,"annotations":{"io.kubernetes.cri.sandbox-cpu-period":"100000","io.kubernetes.cri.sandbox-cpu-quota":"150000","io.kubernetes.cri.sandbox-memory":"1073741824"}}`; string(s.root.append(nil)) != want {
		t.Errorf("got %s", s.root.append(nil))
	}
	for _, in := range []string{`"1Gi"`, `"9223372036854775808"`, `"1.5"`, `1`} {
		if err := SizeSandbox(both, 0)(spec(t, `{"annotations":{"io.kubernetes.cri.sandbox-memory":`+in+`}}`)); err == nil {
			t.Errorf("%s was taken for a size", in)
		}
	}
}

func TestRaisePids(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                               `{}`,
		`{"pids":null}`:                    `{"pids":null}`,
		`{"pids":{}}`:                      `{"pids":{}}`,
		`{"pids":{"limit":0}}`:             `{"pids":{"limit":0}}`,
		`{"pids":{"limit":-1}}`:            `{"pids":{"limit":-1}}`,
		`{"pids":{"limit":1}}`:             `{"pids":{"limit":49}}`,
		`{"pids":{"limit":100,"new":1.0}}`: `{"pids":{"limit":148,"new":1.0}}`,
		`{"pids":{"limit":9223372036854775800},"unified":{"pids.max":"max"}}`: `{"pids":{"limit":9223372036854775807},"unified":{"pids.max":"max"}}`,
		`{"pids":{"limit":5},"unified":{"pids.max":"7","memory.max":"7"}}`:    `{"pids":{"limit":53},"unified":{"pids.max":"55","memory.max":"7"}}`,
	} {
		s := spec(t, `{"linux":{"resources":`+in+`}}`)
		if err := RaisePidsLimit(48)(s); err != nil {
			t.Fatal(err)
		}
		if got := string(s.root.append(nil)); got != `{"linux":{"resources":`+want+`}}` {
			t.Errorf("%s became %s", in, got)
		}
		got, err := EditResources([]byte(in), func(r *specs.LinuxResources) error { RaisePids(r, 48); return nil })
		if err != nil || string(got) != want {
			t.Errorf("an update of %s became %s, %v", in, got, err)
		}
	}
	for _, in := range []string{`{}`, `{"linux":null}`, `{"linux":{"resources":null}}`} {
		s := spec(t, in)
		if err := RaisePidsLimit(48)(s); err != nil || string(s.root.append(nil)) != in {
			t.Errorf("%s became %s, %v", in, s.root.append(nil), err)
		}
	}
}

func TestWithResources(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                  `{"linux":{"resources":{}}}`,
		`{"linux":null}`:                      `{"linux":{"resources":{}}}`,
		`{"linux":{"a":1,"resources":null}}`:  `{"linux":{"a":1,"resources":{}}}`,
		`{"linux":{"resources":{"new":1.0}}}`: `{"linux":{"resources":{"new":1.0}}}`,
	} {
		s := spec(t, in)
		if err := WithResources()(s); err != nil || string(s.root.append(nil)) != want {
			t.Errorf("%s became %s, %v", in, s.root.append(nil), err)
		}
	}
	if err := WithResources()(spec(t, `{"linux":{"Resources":null}}`)); err == nil || !strings.Contains(err.Error(), "spelled") {
		t.Errorf("a member in another case: %v", err)
	}
}
