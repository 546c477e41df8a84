// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"os"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func marshal(m proto.Message) []byte { b, _ := proto.Marshal(m); return b }

func anyOf(typ string, m proto.Message) *anypb.Any {
	return &anypb.Any{TypeUrl: typ, Value: marshal(m)}
}

var (
	ourOptions = anyOf("runtimeoptions.v1.Options", &runtimeoptions.Options{ConfigPath: "/etc/m.toml"})
	params     = &bootapi.BootstrapParams{
		InstanceID: "c1", Namespace: "k8s.io", LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG, ContainerdVersion: "v2.4.2",
		ContainerdGrpcAddress: "/run/c.sock", ContainerdTtrpcAddress: "/run/c.sock.ttrpc", ContainerdBinary: "/usr/bin/containerd",
	}
)

func with(p *bootapi.BootstrapParams, anys ...*anypb.Any) *bootapi.BootstrapParams {
	p = proto.CloneOf(p)
	for _, a := range anys {
		p.Extensions = append(p.Extensions, &bootapi.Extension{Value: a})
	}
	return p
}

// The command lines and standard inputs of containerd's versions, as recorded from their sources: command() of
// core/runtime/v2 in 2.4, client.Command of runtime/v2/shim in 1.7 and pkg/shim in 2.0 to 2.2.
func TestStartInput(t *testing.T) {
	flags := strings.Fields("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id c1")
	for name, c := range map[string]struct {
		args      []string
		stdin     []byte
		bootstrap bool
		debug     bool
		options   *anypb.Any
		err       string
	}{
		"1.7 without options":      {args: flags},
		"1.7 with options":         {args: flags, stdin: marshal(ourOptions), options: ourOptions},
		"2.2 with debug":           {args: append(flags, "-debug"), stdin: marshal(ourOptions), options: ourOptions, debug: true},
		"2.4":                      {args: flags, stdin: marshal(params), bootstrap: true, debug: true},
		"2.4 with options":         {args: flags, stdin: marshal(with(params, ourOptions)), bootstrap: true, debug: true, options: ourOptions},
		"2.4 with others":          {args: flags, stdin: marshal(with(params, anyOf("x.y", params), ourOptions)), bootstrap: true, debug: true, options: ourOptions},
		"2.4 with two of options":  {args: flags, stdin: marshal(with(params, ourOptions, anyOf("containerd.runc.v1.Options", &options.Options{}))), err: "more than one"},
		"of another container":     {args: flags, stdin: marshal(&bootapi.BootstrapParams{InstanceID: "other", Namespace: "k8s.io"}), options: &anypb.Any{TypeUrl: "other", Value: []byte("k8s.io")}},
		"garbage":                  {args: flags, stdin: []byte("\xff\xff"), err: "neither"},
		"a value without its type": {args: flags, stdin: marshal(&anypb.Any{Value: []byte("x")}), err: "neither"},
		"a flag from the future":   {args: append([]string{"-new"}, flags...), err: "not defined"},
	} {
		t.Run(name, func(t *testing.T) {
			inv, err := parseArgs(append(append([]string(nil), c.args...), "start"), func(k string) string { return map[string]string{"TTRPC_ADDRESS": "/run/c.sock.ttrpc"}[k] })
			if err == nil {
				err = inv.readStdin(bytes.NewReader(c.stdin))
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if err != nil {
				return
			}
			wd, _ := os.Getwd()
			if inv.action != "start" || inv.namespace != "k8s.io" || inv.id != "c1" || inv.address != "/run/c.sock" ||
				inv.publishBinary != "/usr/bin/containerd" || inv.ttrpcAddress != "/run/c.sock.ttrpc" || inv.bundle != wd {
				t.Errorf("read as %+v", inv)
			}
			if (inv.bootstrap != nil) != c.bootstrap || inv.debug != c.debug || !proto.Equal(inv.options, c.options) {
				t.Errorf("bootstrap %v, debug %v, options %v", inv.bootstrap, inv.debug, inv.options)
			}
		})
	}
}

func TestDeleteInput(t *testing.T) {
	inv, err := parseArgs(strings.Fields("-namespace n -address /a -publish-binary /b -id c1 -bundle /run/bundle -debug delete"), os.Getenv)
	if err != nil || inv.action != "delete" || inv.bundle != "/run/bundle" || !inv.debug {
		t.Errorf("%+v, %v", inv, err)
	}
}

func FuzzParseStdin(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(marshal(params))
	f.Add(marshal(with(params, ourOptions)))
	f.Add(marshal(ourOptions))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, any, err := parseStdin(data, "c1", "k8s.io")
		if err != nil {
			return
		}
		if p != nil && (p.InstanceID != "c1" || p.Namespace != "k8s.io") {
			t.Fatalf("parameters of another container were taken: %v", p)
		}
		if any != nil && any.TypeUrl == "" && len(any.Value) > 0 {
			t.Fatalf("options without a type were taken: %v", any)
		}
	})
}

func TestAnswer(t *testing.T) {
	result := &bootapi.BootstrapResult{Version: 3, Address: "unix:///delegate", Protocol: "ttrpc", Metadata: map[string]string{"k": "v"}}
	result.ProtoReflect().SetUnknown([]byte("\xa2\x06\x03new"))
	for name, c := range map[string]struct {
		version   int32
		bootstrap bool
		want      string
	}{
		"older, 2": {2, false, "unix:///ours"},
		"older, 3": {3, false, `{"version":3,"address":"unix:///ours","protocol":"ttrpc"}`},
	} {
		got, err := answer(result, "unix:///ours", c.version, c.bootstrap)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	got, err := answer(result, "unix:///ours", 3, true)
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(result)
	want.Address = "unix:///ours"
	back := &bootapi.BootstrapResult{}
	if proto.Unmarshal(got, back) != nil || !proto.Equal(back, want) {
		t.Errorf("newer: %v, want %v", back, want)
	}
	if result.Address != "unix:///delegate" {
		t.Error("the delegate's result was changed")
	}
}

func TestAdvertised(t *testing.T) {
	for name, c := range map[string]struct {
		inv      invocation
		delegate int32
		want     int32
	}{
		"newer":                 {invocation{bootstrap: params}, 3, 3},
		"newer before an old":   {invocation{bootstrap: params}, 2, 2},
		"1.7 before a new one":  {invocation{publishBinary: "/bin/true"}, 3, 2},
		"no binary":             {invocation{publishBinary: "/nonexistent"}, 3, 2},
		"1.7 before an old one": {invocation{publishBinary: "/bin/true"}, 2, 2},
	} {
		if got := advertised(&c.inv, c.delegate); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestMountPoints(t *testing.T) {
	info := "1 0 8:1 / / rw - ext4 a rw\n2 1 0:1 / /run/m/pod rw - tmpfs b rw\n3 2 0:2 / /run/m/pod/a\\040b rw - tmpfs c rw\n" +
		"4 1 0:3 / /run/m/pod2 rw - tmpfs d rw\nshort\n"
	got := mountPoints([]byte(info), "/run/m/pod")
	if len(got) != 2 || got[0] != "/run/m/pod" || got[1] != "/run/m/pod/a b" {
		t.Errorf("%q", got)
	}
}
