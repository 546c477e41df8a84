// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
)

func spec(t *testing.T, config string) *Spec {
	t.Helper()
	s, err := parseSpec([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// process runs edits on a process given as JSON.
func process(t *testing.T, in, want string, edits ...ProcessEdit) {
	t.Helper()
	got, err := EditProcess([]byte(in), edits...)
	if err != nil {
		t.Fatalf("%s: %v", in, err)
	}
	if string(got) != want {
		t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
	}
}

func TestPrefixArgs(t *testing.T) {
	process(t, `{"args":["a","<&>","\u00e9\/"],"new":1.50}`, `{"args":["/.metsuke/guest","run","t","--","a","<&>","\u00e9\/"],"new":1.50}`, PrefixArgs(Guest, "t"))
	process(t, `{"args":["/.metsuke/guest","run"]}`, `{"args":["/.metsuke/guest","run","t","--","/.metsuke/guest","run"]}`, PrefixArgs(Guest, "t"))
	for _, in := range []string{`{}`, `{"args":[]}`, `{"args":null}`, `{"commandLine":"x"}`} {
		if _, err := EditProcess([]byte(in), PrefixArgs(Guest, "t")); !errors.Is(err, ErrNoArgs) {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{`{"args":"sh"}`, `{"Args":["sh"]}`, `{"args":["sh"],"ARGS":["x"]}`, `{"args":[1]}`} {
		if got, err := EditProcess([]byte(in), PrefixArgs(Guest, "t")); err == nil {
			t.Errorf("%s became %s", in, got)
		}
	}
	if _, err := EditProcess([]byte(`{"args":["sh"]}`), PrefixArgs(Guest, "")); err == nil {
		t.Error("a launcher without token")
	}
}

func TestNoNewPrivileges(t *testing.T) {
	process(t, `{"args":["a"]}`, `{"args":["a"],"noNewPrivileges":true}`, NoNewPrivileges())
	process(t, `{"noNewPrivileges":false,"x":{}}`, `{"noNewPrivileges":true,"x":{}}`, NoNewPrivileges())
	process(t, `{"noNewPrivileges":true}`, `{"noNewPrivileges":true}`, NoNewPrivileges())
	if _, err := EditProcess([]byte(`{"nonewprivileges":false}`), NoNewPrivileges()); err == nil {
		t.Error("a member in another case was overlooked")
	}
}

// prepared is runc's prepareEnv, in short.
func prepared(env []string) []string {
	var out []string
	saw, home := map[string]bool{}, false
	for _, kv := range slices.Backward(env) {
		name, value, _ := strings.Cut(kv, "=")
		if saw[name] {
			continue
		}
		saw[name] = true
		if name == "HOME" {
			if value == "" {
				continue
			}
			home = true
		}
		out = append(out, kv)
	}
	slices.Reverse(out)
	if !home {
		out = append(out, "HOME=/root")
	}
	return out
}

func TestMoveGoEnv(t *testing.T) {
	for _, list := range []string{
		"", "A=1", "GOGC=1", "GOGC=1 A=1", "A=1 GOGC=1", "GOGC=1 GOGC=2", "GOGC=1 A=1 GOGC=2 A=2", "HOME= GOGC=1", "GOGC=1 HOME=", "HOME=/h GODEBUG=x HOME=",
		"HOME= GOA=1 HOME=/h GOB=2", "A=1 A=2 GO=x A=3 B=1 GODEBUG= GOMAXPROCS=1", "GOOD=1 GO=2 go=3 XGO=1",
	} {
		env := strings.Fields(list)
		in, _ := json.Marshal(map[string]any{"env": env})
		var moved []plan.EnvVar
		out, err := EditProcess(in, MoveGoEnv(&moved))
		if err != nil {
			t.Fatal(err)
		}
		var p specs.Process
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		for _, kv := range p.Env {
			if strings.HasPrefix(kv, "GO") {
				t.Errorf("%q: %s stays", list, kv)
			}
		}
		if diff := cmp.Diff(prepared(env), plan.MergeEnv(prepared(p.Env), moved)); diff != "" {
			t.Errorf("%q: moved %v (-want +got):\n%s", list, moved, diff)
		}
	}
	var moved []plan.EnvVar
	process(t, `{"env":["GO","=GO","GOX=\u0000"],"a":1}`, `{"env":["GO","=GO","GOX=\u0000"],"a":1}`, MoveGoEnv(&moved)) // for the delegate to refuse
	process(t, `{"env":null}`, `{"env":null}`, MoveGoEnv(&moved))
	process(t, `{"env":["GOGC=1"]}`, `{"env":[]}`, MoveGoEnv(&moved))
}

func TestTakeSeccomp(t *testing.T) {
	s := spec(t, `{"linux":{"a":1,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]},"b":2}}`)
	var p *specs.LinuxSeccomp
	if err := TakeSeccomp(&p)(s); err != nil || p == nil || p.Syscalls[0].Names[0] != "x" {
		t.Fatalf("%+v, %v", p, err)
	}
	if got := string(s.root.append(nil)); got != `{"linux":{"a":1,"b":2}}` {
		t.Errorf("got %s", got)
	}
	for _, in := range []string{`{}`, `{"linux":{}}`, `{"linux":{"seccomp":null}}`} {
		if err := TakeSeccomp(&p)(spec(t, in)); err != nil || p != nil {
			t.Errorf("%s: %+v, %v", in, p, err)
		}
	}
	for _, in := range []string{`{"linux":{"seccomp":{"new":1}}}`, `{"linux":{"seccomp":{"syscalls":[{"names":[],"new":1}]}}}`, `{"linux":{"Seccomp":{}}}`, `{"linux":{"seccomp":5}}`} {
		if err := TakeSeccomp(&p)(spec(t, in)); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

func TestMounts(t *testing.T) {
	s := spec(t, `{"mounts":[{"destination":"/data","new":1}]}`)
	if err := MountPrivate("/h", "/s")(s); err != nil {
		t.Fatal(err)
	}
	want := `{"mounts":[{"destination":"/data","new":1},` +
		`{"destination":"/.metsuke","type":"tmpfs","source":"tmpfs","options":["ro","nosuid","nodev","mode=711","size=4k","nr_inodes=4"]},` +
		`{"destination":"/.metsuke/guest","type":"bind","source":"/h","options":["bind","rprivate","ro","nosuid","nodev"]},` +
		`{"destination":"/.metsuke/sock","type":"bind","source":"/s","options":["bind","rprivate","ro","nosuid","nodev","noexec"]}]}`
	if got := string(s.root.append(nil)); got != want {
		t.Errorf("got %s", got)
	}
	if err := MountPrivate("/h", "/s")(s); err == nil {
		t.Error("it was mounted twice")
	}
	for _, in := range []string{
		`{"mounts":[{"destination":"/.metsuke"}]}`, `{"mounts":[{"destination":"/.metsuke/"}]}`, `{"mounts":[{"destination":"/.metsuke/guest"}]}`,
		`{"mounts":[{"destination":"//.metsuke/sock"}]}`, `{"mounts":[{"destination":"/a/../.metsuke"}]}`, `{"mounts":[{"destination":".metsuke/x"}]}`,
		`{"mounts":[{"destination":"/"}]}`, `{"mounts":[{"destination":""}]}`, `{"mounts":[{"destination":"/a/.."}]}`, `{"mounts":[{"Destination":"/.metsuke"}]}`,
		`{"mounts":[{}]}`, `{"mounts":{}}`, `{"mounts":[5]}`, `{"linux":{"devices":[{"path":"/.metsuke/guest"}]}}`,
	} {
		if err := MountPrivate("/h", "/s")(spec(t, in)); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
	for _, in := range []string{`{"mounts":[{"destination":"/.metsuke2"}]}`, `{"mounts":[{"destination":"/x/.metsuke"}]}`, `{"mounts":null}`, `{}`} {
		if err := MountPrivate("/h", "/s")(spec(t, in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, source := range []string{"", "h", "/h/", "/a/../h"} {
		if MountPrivate(source, "/s")(spec(t, `{}`)) == nil || MountPrivate("/h", source)(spec(t, `{}`)) == nil {
			t.Errorf("source %q was taken", source)
		}
	}
}

// In guest placement ours come first: nothing of the pod's can be on the way to where they are mounted.
func TestMountPrivateInGuest(t *testing.T) {
	s := spec(t, `{"mounts":[{"destination":"/data","new":1},{"destination":"/.metsuke/x"}]}`)
	if err := MountPrivateInGuest(inGuestDir, "/h", true)(s); err != nil {
		t.Fatal(err)
	}
	want := `{"mounts":[` +
		`{"destination":"/.metsuke-0123","type":"tmpfs","source":"tmpfs","options":["rw","nosuid","nodev","mode=755","size=4k","nr_inodes=8"]},` +
		`{"destination":"/.metsuke-0123/guest","type":"bind","source":"/h","options":["bind","rprivate","ro","nosuid","nodev"]},` +
		`{"destination":"/.metsuke-0123/cgroup","type":"cgroup","source":"cgroup","options":["rw","nosuid","nodev","noexec"]},` +
		`{"destination":"/data","new":1},{"destination":"/.metsuke/x"}]}`
	if got := string(s.root.append(nil)); got != want {
		t.Errorf("got %s", got)
	}
	for _, in := range []string{`{"mounts":[{"destination":"/"}]}`, `{"mounts":[{"destination":"/a/.."}]}`, want} {
		if err := MountPrivateInGuest(inGuestDir, "/h", false)(spec(t, in)); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

func TestIdentity(t *testing.T) {
	for file, want := range map[string]Identity{
		"cri-2.4":     {CRI: true, SandboxID: "5a9d3f00", Namespace: "team-a", Pod: "coder-0", PodUID: "0f9b6c1e-6c8f-4d3e-9d2b-3f1f0d2c7a11", Container: "agent", Image: "docker.io/library/agent:1"},
		"cri-1.7":     {CRI: true, SandboxID: "5a9d3f00", Namespace: "team-a", Pod: "coder-0", PodUID: "0f9b6c1e-6c8f-4d3e-9d2b-3f1f0d2c7a11", Container: "agent", Image: "docker.io/library/agent:1"},
		"sandbox-2.4": {CRI: true, Sandbox: true, SandboxID: "5a9d3f00", Namespace: "team-a", Pod: "coder-0", PodUID: "0f9b6c1e-6c8f-4d3e-9d2b-3f1f0d2c7a11"},
	} {
		in, err := os.ReadFile("testdata/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		s := spec(t, string(in))
		got, err := s.Identity("k8s.io", "c1")
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", file, err, diff)
		}
		if sandbox, err := s.IsSandbox(); err != nil || sandbox != want.Sandbox {
			t.Errorf("%s: sandbox %v, %v", file, sandbox, err)
		}
	}
	for in, want := range map[string]Identity{
		`{}`:                                   {SandboxID: "c1", Namespace: "default", Pod: "c1", Container: "c1"},
		`{"annotations":null}`:                 {SandboxID: "c1", Namespace: "default", Pod: "c1", Container: "c1"},
		`{"annotations":{"nerdctl/name":"w"}}`: {SandboxID: "c1", Namespace: "default", Pod: "w", Container: "w"},
	} {
		if got, err := spec(t, in).Identity("default", "c1"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	if _, err := spec(t, `{"annotations":{"a":1}}`).Identity("", ""); err == nil {
		t.Error("an annotation that is no string was taken")
	}
}

func TestEditResources(t *testing.T) {
	clamp := func(r *specs.LinuxResources) error {
		_, err := cgroups.ClampUpdate(r, nil, cgroups.Limits{Memory: ptr(int64(100)), Hugepages: map[string]int64{"2MB": 0}, IO: []cgroups.IOLimit{{Device: "8:0", ReadBPS: ptr(int64(5))}}}, cgroups.V2)
		return err
	}
	got, err := EditResources([]byte(`{"memory":{"limit":200,"n":1.0},"cpu":{"shares":1.0e3},"unified":{"memory.max":"max"},"hugepageLimits":[{"pageSize":"1GB","limit":1,"n":2},{"pageSize":"2MB","limit":1,"n":3}]}`), clamp)
	if err == nil {
		t.Errorf("a number that no delegate takes was taken: %s", got)
	}
	got, err = EditResources([]byte(`{"memory":{"limit":200,"n":1.0},"unified":{"memory.max":"max","x":"<"},"hugepageLimits":[{"pageSize":"1GB","limit":1,"n":2},{"pageSize":"2MB","limit":1,"n":3}],"new":[1.0]}`), clamp)
	want := `{"memory":{"limit":100,"n":1.0},"unified":{"memory.max":"100","x":"<"},"hugepageLimits":[{"pageSize":"1GB","limit":1,"n":2},{"pageSize":"2MB","limit":0,"n":3}],"new":[1.0]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	// runc reads these, other delegates may not.
	for _, in := range []string{
		`{"Memory":{"limit":1}}`, `{"memory":{"Limit":1}}`, `{"memory":{"LIMIT":900}}`, `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1,"Rate":9}]}}`, `{"blockio":{"weight":1}}`, `[]`,
	} {
		if got, err := EditResources([]byte(in), clamp); err == nil {
			t.Errorf("%s became %s", in, got)
		}
	}
}

// changed lists the paths at which two documents differ; lists count as one value unless they only grew.
func changed(path string, a, b any, out *[]string) {
	x, okX := a.(map[string]any)
	y, okY := b.(map[string]any)
	if okX && okY {
		for k := range x {
			changed(path+"."+k, x[k], y[k], out)
		}
		for k := range y {
			if _, ok := x[k]; !ok {
				*out = append(*out, path+"."+k)
			}
		}
		return
	}
	if l, ok := a.([]any); ok {
		if m, ok := b.([]any); ok && len(m) >= len(l) {
			for i := range l {
				changed(path+"["+strconv.Itoa(i)+"]", l[i], m[i], out)
			}
			if len(m) > len(l) {
				*out = append(*out, path+"[+]")
			}
			return
		}
	}
	if !reflect.DeepEqual(a, b) {
		*out = append(*out, path)
	}
}

// TestEditsTouchOnlyTheirOwn runs every edit alone on a document with unknown members at each level.
func TestEditsTouchOnlyTheirOwn(t *testing.T) {
	in, err := os.ReadFile("testdata/future.json")
	if err != nil {
		t.Fatal(err)
	}
	var e everything
	tests := map[string]struct {
		edit Edit
		want []string
	}{
		"ClampLimits": {ClampLimits(limits, cgroups.V2, &e.Changes), []string{
			".linux.resources.cpu.quota", ".linux.resources.memory.limit", ".linux.resources.memory.swap", ".linux.resources.pids.limit", ".linux.resources.unified.memory.high"}},
		"ClampLimits none":  {ClampLimits(cgroups.Limits{}, cgroups.V2, &e.Changes), nil},
		"RaisePidsLimit":    {RaisePidsLimit(48), []string{".linux.resources.pids.limit"}},
		"WithResources":     {WithResources(), nil},
		"RefuseAnnotations": {RefuseAnnotations(nil), nil},
		"RefuseGuestFiles":  {RefuseGuestFiles(), nil},
		"RefuseStartHooks":  {RefuseStartHooks(), nil},
		"SizeSandbox": {SizeSandbox(limits, 1<<20), []string{
			".annotations.io.kubernetes.cri.sandbox-cpu-period", ".annotations.io.kubernetes.cri.sandbox-cpu-quota", ".annotations.io.kubernetes.cri.sandbox-memory"}},
		"TakeSeccomp":     {TakeSeccomp(&e.seccomp), []string{".linux.seccomp"}},
		"MountPrivate":    {MountPrivate("/h", "/s"), []string{".mounts[+]"}},
		"MoveGoEnv":       {OnProcess(MoveGoEnv(&e.Moved)), []string{".process.env"}},
		"NoNewPrivileges": {OnProcess(NoNewPrivileges()), []string{".process.noNewPrivileges"}},
		"WidenCapabilities": {OnProcess(WidenCapabilities(nil, &e.Was)), []string{
			".process.capabilities.ambient[+]", ".process.capabilities.bounding[+]", ".process.capabilities.effective[+]", ".process.capabilities.inheritable", ".process.capabilities.permitted[+]"}},
		"WidenForResident": {OnProcess(WidenForResident(true, nil, &e.Was)), []string{
			".process.capabilities.ambient[+]", ".process.capabilities.bounding[+]", ".process.capabilities.effective[+]", ".process.capabilities.inheritable", ".process.capabilities.permitted[+]"}},
		"PlanDropped": {OnProcess(PlanDropped(&e.plan)), nil},
		"PrefixArgs": {OnProcess(PrefixArgs(Guest, "t")), []string{
			".process.args[+]", ".process.args[0]", ".process.args[1]", ".process.args[2]", ".process.args[3]"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := spec(t, string(in))
			if err := tt.edit(s); err != nil {
				t.Fatal(err)
			}
			var got []string
			changed("", number(t, in), number(t, s.root.append(nil)), &got)
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// number decodes with numbers as they are spelled.
func number(t testing.TB, raw []byte) any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return v
}
