// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/node/cri/servertest"
)

func dial(t *testing.T, endpoint string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestDial(t *testing.T) {
	server := servertest.Start(t)
	for _, endpoint := range []string{server.Endpoint, strings.TrimPrefix(server.Endpoint, "unix://")} {
		got, err := dial(t, endpoint).Version(t.Context())
		if want := (Version{Runtime: "containerd", Version: "v2.4.2"}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", endpoint, got, err)
		}
	}
}

func TestPID(t *testing.T) {
	if pid, err := dial(t, servertest.Start(t).Endpoint).PID(t.Context()); err != nil || pid != os.Getpid() {
		t.Errorf("%d, %v", pid, err)
	}
}

func TestDialFails(t *testing.T) {
	unanswered := filepath.Join(t.TempDir(), "s") // accepts, and says nothing
	listener, err := net.Listen("unix", unanswered)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	nobody := servertest.Start(t)
	nobody.Runtime = ""
	for name, c := range map[string]struct {
		endpoint string
		wait     time.Duration
		want     string
	}{
		"relative":    {"run/containerd.sock", time.Minute, "expected an absolute path"},
		"no path":     {"", time.Minute, "expected an absolute path"},
		"over TCP":    {"tcp://127.0.0.1:1", time.Minute, "expected an absolute path"},
		"absent":      {filepath.Join(t.TempDir(), "none"), time.Minute, "no such file"},
		"no CRI":      {nobody.Endpoint, time.Minute, "Unimplemented"},
		"no answer":   {unanswered, 50 * time.Millisecond, "DeadlineExceeded"},
		"a URL's end": {unanswered + "%zz?a#b", time.Minute, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.wait)
			defer cancel()
			if _, err := Dial(ctx, c.endpoint); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	server := servertest.Start(t)
	server.Conditions = []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
	}
	got, err := dial(t, server.Endpoint).Conditions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Condition{{"RuntimeReady", true, "", ""}, {"NetworkReady", false, "NetworkPluginNotReady", "cni plugin not initialized"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The files are what containerd 1.7.35 and 2.4.2 make of their own types.
func TestHandlers(t *testing.T) {
	metsuke := Handler{
		RuntimeType: "io.containerd.metsuke.v2", PodAnnotations: []string{"metsuke.dev/*"},
		Options: map[string]any{"ConfigPath": "/etc/metsuke/config.toml"},
	}
	kata := Handler{
		RuntimeType: "io.containerd.metsuke.v2", RuntimePath: "/opt/metsuke/bin/containerd-shim-metsuke-v2",
		PodAnnotations: []string{"metsuke.dev/*", "io.katacontainers.*"}, PrivilegedWithoutHostDevices: true,
		Options: map[string]any{"ConfigPath": "/etc/metsuke/kata.toml"},
	}
	runc := Handler{RuntimeType: "io.containerd.runc.v2", Sandboxer: "podsandbox"}
	inShim := Handler{RuntimeType: "io.containerd.metsuke.v2", Sandboxer: "shim", CgroupWritable: true}
	for file, want := range map[string]map[string]Handler{
		"containerd-1.7.json": {"metsuke": metsuke, "metsuke-kata": kata, "runc": runc, "metsuke-shim": {RuntimeType: "io.containerd.metsuke.v2", Sandboxer: "shim"}},
		"containerd-2.4.json": {"metsuke": metsuke, "metsuke-kata": kata, "runc": runc, "metsuke-shim": inShim},
	} {
		t.Run(file, func(t *testing.T) {
			config, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			server := servertest.Start(t)
			server.Config = string(config)
			got, err := dial(t, server.Endpoint).Handlers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			runc := got["runc"]
			runc.Options = nil // each version's own
			got["runc"] = runc
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHandlersUnknown(t *testing.T) {
	for name, c := range map[string]struct{ config, want string }{
		"another runtime": {"", "is it containerd?"},
		"no JSON":         {"{", "configuration"},
		"no table":        {`{"containerd":{}}`, "no containerd.runtimes"},
		"no containerd":   {`{}`, "no containerd.runtimes"},
		"another form":    {`{"containerd":{"runtimes":{"a":[]}}}`, "cannot unmarshal"},
		"too large":       {`{"containerd":{"runtimes":{}},"x":"` + strings.Repeat("x", maxConfig) + `"}`, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			server := servertest.Start(t)
			server.Config = c.config
			if _, err := dial(t, server.Endpoint).Handlers(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestPods(t *testing.T) {
	server := servertest.Start(t)
	server.AddPods(
		&runtimeapi.PodSandbox{
			Id: "a1", Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "agents", Name: "coder", Uid: "u1"},
			RuntimeHandler: "metsuke", State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: 1e18,
		},
		&runtimeapi.PodSandbox{Id: "b2", State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: 2},
	)
	got, err := dial(t, server.Endpoint).Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Pod{
		{ID: "a1", Namespace: "agents", Name: "coder", UID: "u1", Handler: "metsuke", Ready: true, Created: time.Unix(1e9, 0)},
		{ID: "b2", Created: time.Unix(0, 2)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	server := servertest.Start(t)
	server.AddPods(&runtimeapi.PodSandbox{Id: strings.Repeat("x", maxAnswer)})
	if _, err := dial(t, server.Endpoint).Pods(t.Context()); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
}

func FuzzParseHandlers(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, file := range files {
		data, _ := os.ReadFile(file)
		f.Add(string(data))
	}
	f.Add(`{"containerd":{"runtimes":{"":{"options":{"a":[{}]}}}}}`)
	f.Add(`{"containerd":{"runtimes":null}}`)
	f.Fuzz(func(t *testing.T, config string) {
		handlers, err := parseHandlers(config)
		if (handlers == nil) == (err == nil) {
			t.Fatalf("%v, %v", handlers, err)
		}
	})
}
