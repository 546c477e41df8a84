// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
)

// Of what containerd sends with a Create, the delegate gets the owner of its FIFOs and nothing else.
func TestCreateOptions(t *testing.T) {
	runc := func(o *options.Options) *anypb.Any {
		value, err := proto.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value}
	}
	cfg := delegate.Config{RuntimeType: delegate.RuncType, Runc: &options.Options{BinaryName: "/runc", SystemdCgroup: true}}
	own, err := cfg.Options()
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{Options: Options{Pod: &bootstrap.Pod{Settings: bootstrap.Settings{Delegate: cfg}}}, options: own}
	for _, test := range []struct {
		name     string
		asked    *anypb.Any
		uid, gid uint32
	}{
		{"none", nil, 0, 0},
		{"ours", &anypb.Any{TypeUrl: "runtimeoptions.v1.Options", Value: []byte("x")}, 0, 0},
		{"another binary", runc(&options.Options{BinaryName: "/evil", NoNewKeyring: true}), 0, 0},
		{"an owner", runc(&options.Options{IoUid: 65536, IoGid: 7, BinaryName: "/evil"}), 65536, 7},
	} {
		any, err := s.createOptions(test.asked)
		if err != nil {
			t.Fatal(err)
		}
		var got options.Options
		if err := proto.Unmarshal(any.Value, &got); err != nil {
			t.Fatal(err)
		}
		want := &options.Options{BinaryName: "/runc", SystemdCgroup: true, IoUid: test.uid, IoGid: test.gid}
		if !proto.Equal(&got, want) {
			t.Errorf("%s: %v, want %v", test.name, &got, want)
		}
	}
	if cfg.Runc.IoUid != 0 {
		t.Error("the configuration was changed")
	}
	if _, err := s.createOptions(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}); err == nil {
		t.Error("garbage is no error")
	}
}
