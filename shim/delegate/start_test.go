// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

// script makes a delegate that records how it was called, and answers as said.
func script(t *testing.T, answer string) (binary, records string) {
	t.Helper()
	dir := t.TempDir()
	binary = filepath.Join(dir, "shim")
	text := fmt.Sprintf(`#!/bin/sh
n=$(ls %[1]s | grep -c '^args') # how often it was called before
printf '%%s\n' "$@" > %[1]s/args.$n
cat > %[1]s/stdin.$n
env > %[1]s/env.$n
pwd > %[1]s/cwd.$n
%[2]s
`, dir, answer)
	if err := os.WriteFile(binary, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return binary, dir
}

const (
	ok      = "printf unix:///nonexistent/s"
	refuses = `if [ $n = 0 ]; then echo "io.containerd.runc.v2: shim was started through the deprecated API" >&2; exit 1; fi; ` + ok
)

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Which protocol a delegate hears first, and what it hears.
func TestStartProtocols(t *testing.T) {
	opts := &options.Options{BinaryName: "crun"}
	inGroup := &options.Options{ShimCgroup: "/shims"}
	ours, err := anypb.New(&runtimeoptions.Options{ConfigPath: "/etc/metsuke/config.toml"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := anypb.New(&bootapi.BootstrapResult{Address: "an extension of somebody's"})
	if err != nil {
		t.Fatal(err)
	}
	dir := "/run/containerd/s"
	from := &bootapi.BootstrapParams{
		InstanceID: "c1", Namespace: "k8s.io", LogLevel: -4, ContainerdVersion: "v2.4.2", ContainerdGrpcAddress: "/c.sock",
		ContainerdTtrpcAddress: "/c.sock.ttrpc", ContainerdBinary: "/usr/bin/containerd", SocketDir: &dir,
		Extensions: []*bootapi.Extension{{Value: ours}, {Value: other}},
	}
	for name, c := range map[string]struct {
		params    *bootapi.BootstrapParams
		runc      *options.Options
		answer    string
		protocols []string // of each run
	}{
		"older":                       {nil, opts, ok, []string{"older"}},
		"older to newer":              {nil, opts, refuses, []string{"older", "newer"}},
		"newer":                       {from, opts, ok, []string{"newer"}},
		"newer with a cgroup":         {from, inGroup, ok, []string{"older"}},
		"newer with a cgroup, refuse": {from, inGroup, refuses, []string{"older", "newer"}},
		"no options":                  {nil, nil, ok, []string{"older"}},
	} {
		t.Run(name, func(t *testing.T) {
			binary, records := script(t, c.answer)
			bundle := t.TempDir()
			got, err := Start(t.Context(), Config{Binary: binary, RuntimeType: RuncType, Runc: c.runc}, Params{
				Namespace: "k8s.io", ID: "c1", Bundle: bundle, Address: "/c.sock", PublishBinary: "/usr/bin/containerd",
				Debug: true, TTRPCAddress: "/pod/events.sock", Bootstrap: c.params,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got.Address != "unix:///nonexistent/s" || got.Version != 2 || got.New {
				t.Errorf("started %+v", got)
			}
			for i, protocol := range c.protocols {
				checkRun(t, records, bundle, i)
				stdin := []byte(read(t, records, fmt.Sprint("stdin.", i)))
				if protocol == "older" {
					checkOlder(t, stdin, c.runc)
				} else {
					checkNewer(t, stdin, c.params, c.runc, other)
				}
			}
			if _, err := os.Stat(filepath.Join(records, fmt.Sprint("args.", len(c.protocols)))); err == nil {
				t.Error("it was run once more")
			}
		})
	}
}

func checkRun(t *testing.T, records, bundle string, i int) {
	t.Helper()
	want := "-namespace k8s.io -address /c.sock.metsuke -publish-binary /usr/bin/containerd -id c1 -debug start"
	if got := strings.Join(strings.Fields(read(t, records, fmt.Sprint("args.", i))), " "); got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	env := "\n" + read(t, records, fmt.Sprint("env.", i))
	for _, want := range []string{"TTRPC_ADDRESS=/pod/events.sock", "GRPC_ADDRESS=/c.sock.metsuke", "NAMESPACE=k8s.io"} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("the environment has no %s", want)
		}
	}
	if got := strings.TrimSpace(read(t, records, fmt.Sprint("cwd.", i))); got != bundle {
		t.Errorf("run in %s, want the bundle %s", got, bundle)
	}
}

func checkOlder(t *testing.T, stdin []byte, runc *options.Options) {
	t.Helper()
	if runc == nil {
		if len(stdin) != 0 {
			t.Errorf("standard input %x, want none", stdin)
		}
		return
	}
	var any anypb.Any
	var got options.Options
	if proto.Unmarshal(stdin, &any) != nil || any.TypeUrl != "containerd.runc.v1.Options" || any.UnmarshalTo(&got) != nil || !proto.Equal(&got, runc) {
		t.Errorf("standard input %x, want the options %v", stdin, runc)
	}
}

func checkNewer(t *testing.T, stdin []byte, from *bootapi.BootstrapParams, runc *options.Options, other *anypb.Any) {
	t.Helper()
	got := &bootapi.BootstrapParams{}
	if err := proto.Unmarshal(stdin, got); err != nil {
		t.Fatal(err)
	}
	want := &bootapi.BootstrapParams{LogLevel: -4, ContainerdBinary: "/usr/bin/containerd"}
	if from != nil {
		want = proto.CloneOf(from)
		want.Extensions = []*bootapi.Extension{{Value: other}}
	}
	want.InstanceID, want.Namespace = "c1", "k8s.io"
	want.ContainerdGrpcAddress, want.ContainerdTtrpcAddress = "/c.sock.metsuke", "/pod/events.sock"
	var o options.Options
	if found, err := got.FindExtension(&o); err != nil || !found || !proto.Equal(&o, runc) {
		t.Errorf("options %v (%v), want %v", &o, err, runc)
	}
	got.Extensions = got.Extensions[:len(got.Extensions)-1]
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestStartFails(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"exits":          {"echo no such runtime >&2; exit 1", "no such runtime: exit status 1"},
		"says nothing":   {"exit 0", "no address"},
		"refuses always": {"echo started through the deprecated API >&2; exit 1", "deprecated API"},
		"serves grpc":    {`printf '{"version":3,"address":"unix:///x","protocol":"grpc"}'`, "only ttrpc"},
	} {
		t.Run(name, func(t *testing.T) {
			binary, _ := script(t, c.answer)
			_, err := Start(t.Context(), Config{Binary: binary, RuntimeType: RuncType}, Params{Namespace: "n", ID: "i", Bundle: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// What a failed start leaves running is ended; what a good one leaves is found, even if it keeps the pipe.
func TestStartLeavesProcess(t *testing.T) {
	binary, _ := script(t, "sleep 1000 & "+ok)
	got, err := Start(t.Context(), Config{Binary: binary, RuntimeType: RuncType}, Params{Namespace: "n", ID: "i", Bundle: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if !got.New || !got.Process.Alive() {
		t.Fatalf("started %+v; want its process", got)
	}
	var comm []byte
	for end := time.Now().Add(time.Minute); string(comm) != "sleep\n"; time.Sleep(time.Millisecond) { // it is a shell before
		if comm, _ = os.ReadFile(fmt.Sprintf("/proc/%d/comm", got.Process.PID)); time.Now().After(end) {
			t.Fatalf("found %q", comm)
		}
	}
	if err := got.End(t.Context()); err != nil || got.Process.Alive() {
		t.Errorf("end: %v, alive %v", err, got.Process.Alive())
	}

	binary, dir := script(t, "sleep 1000 >/dev/null 2>&1 & echo $! > "+"PIDFILE; exit 1")
	text := strings.ReplaceAll(read(t, dir, "shim"), "PIDFILE", filepath.Join(dir, "pid"))
	if err := os.WriteFile(binary, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Binary: binary, RuntimeType: RuncType}, Params{Namespace: "n", ID: "i", Bundle: t.TempDir()}); err == nil {
		t.Fatal("no error")
	}
	var pid int
	if _, err := fmt.Sscan(read(t, dir, "pid"), &pid); err != nil {
		t.Fatal(err)
	}
	if p, err := Identify(pid); err == nil && p.Alive() {
		t.Errorf("process %d is left", pid)
	}
}

func TestDeleteAndInfo(t *testing.T) {
	binary, dir := script(t, "printf answer")
	bundle := t.TempDir()
	out, err := Delete(t.Context(), binary, Params{Namespace: "n", ID: "i", Bundle: bundle, Address: "/c.sock", PublishBinary: "/b"})
	if err != nil || string(out) != "answer" {
		t.Fatalf("%q, %v", out, err)
	}
	want := "-namespace n -address /c.sock.metsuke -publish-binary /b -id i -bundle " + bundle + " delete"
	if got := strings.Join(strings.Fields(read(t, dir, "args.0")), " "); got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	out, err = Info(t.Context(), Config{Binary: binary, RuntimeType: "io.containerd.kata.v2", ConfigPath: "/k"})
	if err != nil || string(out) != "answer" {
		t.Fatalf("%q, %v", out, err)
	}
	if got := read(t, dir, "args.1"); got != "-info\n" {
		t.Errorf("arguments %q, want -info alone", got)
	}
	if got := read(t, dir, "stdin.1"); !strings.Contains(got, "runtimeoptions.v1.Options") {
		t.Errorf("standard input %q", got)
	}
}
