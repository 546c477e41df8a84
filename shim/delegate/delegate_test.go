// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"os"
	"os/exec"
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

func TestParseResult(t *testing.T) {
	encode := func(r *bootapi.BootstrapResult) string { b, _ := proto.Marshal(r); return string(b) }
	hash := strings.Repeat("a", 64)
	full := &bootapi.BootstrapResult{Version: 3, Address: "unix:///s/x", Protocol: "ttrpc", Metadata: map[string]string{"a": "b"}}
	for name, c := range map[string]struct {
		out  string
		want *bootapi.BootstrapResult
		err  string
	}{
		"2.4":            {encode(full), full, ""},
		"2.0 to 2.2":     {`{"version":3,"address":"unix:///s/x","protocol":"ttrpc"}`, &bootapi.BootstrapResult{Version: 3, Address: "unix:///s/x", Protocol: "ttrpc"}, ""},
		"new field":      {`{"version":2,"address":"unix:///s/x","protocol":"TTRPC","z":1}` + "\n", &bootapi.BootstrapResult{Version: 2, Address: "unix:///s/x", Protocol: "TTRPC"}, ""},
		"1.7 and kata":   {"unix:///run/containerd/s/" + hash, &bootapi.BootstrapResult{Version: 2, Address: "unix:///run/containerd/s/" + hash, Protocol: "ttrpc"}, ""},
		"with a newline": {"unix:///s/x\n", &bootapi.BootstrapResult{Version: 2, Address: "unix:///s/x", Protocol: "ttrpc"}, ""},
		"nothing":        {"", nil, "no address"},
		"grpc":           {`{"version":3,"address":"unix:///s/x","protocol":"grpc"}`, nil, "only ttrpc"},
		"version 4":      {`{"version":4,"address":"unix:///s/x","protocol":"ttrpc"}`, nil, "version 4"},
		"version 1":      {`{"version":1,"address":"unix:///s/x","protocol":"ttrpc"}`, nil, "version 1"},
		"vsock":          {"vsock://3:1024", nil, "want unix:///path"},
		"abstract":       {"/containerd-shim/x.sock", nil, "want unix:///path"},
		"relative":       {"unix://x", nil, "want unix:///path"},
		"long":           {"unix:///" + strings.Repeat("x", 120), nil, "longer than 107"},
		"words":          {"unix:///s/x\nwarning: this", nil, "not a path"},
		"bad JSON":       {"{", nil, "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseResult([]byte(c.out))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, %v; want an error with %q", got, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseResult(f *testing.F) {
	b, _ := proto.Marshal(&bootapi.BootstrapResult{Version: 3, Address: "unix:///s/x", Protocol: "ttrpc"})
	for _, s := range []string{"", "unix:///s/x", "{}", `{"version":3,"address":"unix:///s/x","protocol":"ttrpc"}`, string(b), "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseResult(data)
		if err != nil {
			return
		}
		path, err := SocketPath(r.Address)
		if err != nil || !filepath.IsAbs(path) || r.Version < 2 || r.Version > 3 || strings.ContainsRune(path, 0) {
			t.Fatalf("%x was taken for %v", data, r)
		}
	})
}

func TestOptions(t *testing.T) {
	runc := &options.Options{BinaryName: "crun", SystemdCgroup: true}
	for name, c := range map[string]struct {
		cfg  Config
		typ  string
		want proto.Message
		err  string
	}{
		"runc":             {Config{RuntimeType: RuncType, Runc: runc}, "containerd.runc.v1.Options", runc, ""},
		"runc bare":        {Config{RuntimeType: RuncType}, "", nil, ""},
		"kata":             {Config{RuntimeType: "io.containerd.kata.v2", ConfigPath: "/k.toml"}, "runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigPath: "/k.toml"}, ""},
		"kata with runc's": {Config{RuntimeType: "io.containerd.kata.v2", Runc: runc}, "", nil, "not options of runc"},
		"runc with a file": {Config{RuntimeType: RuncType, ConfigPath: "/x"}, "", nil, "takes no configuration file"},
	} {
		t.Run(name, func(t *testing.T) {
			any, err := c.cfg.Options()
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			case err != nil:
				t.Fatal(err)
			case c.want == nil:
				if any != nil {
					t.Errorf("options %v, want none", any)
				}
				return
			}
			got := c.want.ProtoReflect().New().Interface()
			if any.TypeUrl != c.typ || any.UnmarshalTo(got) != nil || !proto.Equal(got, c.want) {
				t.Errorf("options %v, want %s %v", any, c.typ, c.want)
			}
		})
	}
}

func TestUnwrapOptions(t *testing.T) {
	wrap := func(typ string, o *runtimeoptions.Options) *anypb.Any {
		b, _ := proto.Marshal(o)
		return &anypb.Any{TypeUrl: typ, Value: b}
	}
	for name, c := range map[string]struct {
		any       *anypb.Any
		want, err string
	}{
		"none":        {nil, "", ""},
		"empty":       {&anypb.Any{}, "", ""},
		"cri":         {wrap("runtimeoptions.v1.Options", &runtimeoptions.Options{TypeUrl: "x", ConfigPath: "/etc/m.toml", ConfigBody: []byte("y")}), "/etc/m.toml", ""},
		"with prefix": {wrap("type.googleapis.com/runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigPath: "/a"}), "/a", ""},
		"old name":    {wrap("cri.runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigPath: "/a"}), "/a", ""},
		"no path":     {wrap("runtimeoptions.v1.Options", &runtimeoptions.Options{}), "", ""},
		"body alone":  {wrap("runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigBody: []byte("a=1")}), "", "no ConfigPath but a body"},
		"relative":    {wrap("runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigPath: "m.toml"}), "", "not absolute"},
		"runc's":      {wrap("containerd.runc.v1.Options", nil), "", `of type "containerd.runc.v1.Options"`},
		"broken":      {&anypb.Any{TypeUrl: "runtimeoptions.v1.Options", Value: []byte{0xff}}, "", "runtime options"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := UnwrapOptions(c.any)
			if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v; want %q, error %q", got, err, c.want, c.err)
			}
			if err != nil && !errors.Is(err, ErrOptions) {
				t.Errorf("error %v is no ErrOptions", err)
			}
		})
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	shim := filepath.Join(dir, "containerd-shim-kata-v2")
	if err := os.WriteFile(shim, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg       Config
		want, err string
	}{
		"type":          {Config{RuntimeType: "io.containerd.kata.v2"}, shim, ""},
		"path":          {Config{Binary: shim, RuntimeType: "x"}, shim, ""},
		"name":          {Config{Binary: "containerd-shim-kata-v2"}, shim, ""},
		"absent":        {Config{RuntimeType: "io.containerd.none.v2"}, "", "neither in PATH nor in"},
		"absent path":   {Config{Binary: "/nonexistent/shim"}, "", "no such file"},
		"relative path": {Config{Binary: "./shim"}, "", "absolute path or a plain name"},
		"bad type":      {Config{RuntimeType: "kata"}, "", "runtime type"},
		"type of path":  {Config{RuntimeType: "io/containerd.kata.v2"}, "", "runtime type"},
		"ourselves":     {Config{Binary: self}, "", "this shim itself"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.cfg.Find()
			if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v; want %q, error %q", got, err, c.want, c.err)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	tail := " S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2 3"
	for name, c := range map[string]struct {
		in   string
		want stat
		ok   bool
	}{
		"plain":   {"1 (a)" + tail, stat{'S', 7, 12345}, true},
		"hostile": {"1 (a) Z 9 (b) )" + tail, stat{'S', 7, 12345}, true},
		"empty":   {"", stat{}, false},
		"short":   {"1 (a) S 1 2", stat{}, false},
		"words":   {"1 (a) S x" + strings.Repeat(" 1", 30), stat{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(c.in))
			if (err == nil) != c.ok || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Identify(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	other := p
	other.StartTime++
	rebooted := p
	rebooted.BootID = "x"
	for name, q := range map[string]Process{"reused pid": other, "another boot": rebooted, "none": {}} {
		if q.Alive() {
			t.Errorf("%s: alive", name)
		}
		if err := errors.Join(q.Kill(t.Context()), q.Wait(t.Context())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !p.Alive() {
		t.Fatal("the wrong process was killed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a process that lives: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- p.Wait(t.Context()) }()
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("wait: %v", err)
	}
	if p.Alive() {
		t.Error("a zombie is alive")
	}
	_ = cmd.Wait()
	if err := p.Kill(t.Context()); err != nil {
		t.Errorf("kill of a process that is gone: %v", err)
	}
}
