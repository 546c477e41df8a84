// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/audit"
)

func TestCanary(t *testing.T) {
	no := status.Error(codes.Internal, "no")
	receipt := func(change func(*audit.Receipt, *audit.Identity)) func(*fake) {
		return func(f *fake) { f.receipt = change }
	}
	var all strings.Builder
	for _, c := range []struct {
		name   string
		change func(f *fake)
		want   string
		ran    int // canaries, of the one handler
	}{
		{"well", func(*fake) {}, "ok: its receipt is what baseline promises", 1},
		{"silent", func(f *fake) { f.silent = errors.New("no") }, "skip: no pod can be started", 0},
		{"no configuration", func(f *fake) { f.write("/etc/metsuke/config.toml", "version = 2", 0o644) }, "skip: cannot be read", 0},
		{"no sandbox", func(f *fake) { f.server.Scenario.Errors = map[string]error{"RunPodSandbox": no} }, "fail: run a pod under metsuke", 1},
		{"no status", func(f *fake) { f.server.Scenario.Errors = map[string]error{"PodSandboxStatus": no} }, "fail: ask for the sandbox", 1},
		{"no container", func(f *fake) { f.server.Scenario.Errors = map[string]error{"CreateContainer": no} }, "fail: create a container", 1},
		{"no start", func(f *fake) { f.shim = func(string) error { return errors.New("not armed") } }, "fail: not armed", 1},
		{"no stream", func(f *fake) { f.server.Scenario.OnStart = nil }, "fail: it runs, and has no stream", 1},
		{"no receipt", func(f *fake) { f.server.Scenario.OnStart = f.otherRecord }, "fail: its stream has no receipt", 1},
		{"stopped once", func(f *fake) { f.server.Scenario.Stopped = 1 }, "ok: its receipt is what", 2},
		{"stopped always", func(f *fake) { f.server.Scenario.Stopped = 9 }, "fail: was gone 5 times", 5},
		{"the kubelet", func(f *fake) {
			f.server.Scenario.Stopped = 9
			f.write("/proc/77/comm", "kubelet\n", 0o444)
		}, "warn: the kubelet has removed the canary 5 times", 5},
		{"cannot be removed", func(f *fake) { f.server.Scenario.Errors = map[string]error{"StopPodSandbox": no} }, "fail: the canary is still there", 1},
		{"bad profiles", func(f *fake) { f.profile("limits: {pid: 5}") }, "fail: spec.limits.pid", 1},
		{"another profile", receipt(func(_ *audit.Receipt, id *audit.Identity) { id.Profile, id.ProfileDigest = "weak", "00" }), "fail: profile is weak, not baseline", 1},
		{"no filter", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.SeccompMode = 0 }), "fail: seccomp mode is 0, not 2", 1},
		{"another filter", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.FilterDigest = "00" }), "fail: filter's digest is 00", 1},
		{"privileges", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.NoNewPrivs = false }), "fail: no_new_privs is false", 1},
		{"goes on", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.OnLoss = "continue" }), "fail: onLoss is continue, not kill", 1},
		{"another place", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.Placement = "guest" }), "fail: placement is guest, not host", 1},
		{"another delegate", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.Delegate = "x" }), "fail: delegate is x", 1},
		{"no limit", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.Limits = nil }), "fail: limit pids is missing", 1},
		{"another limit", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.Limits[0].Asked = "9" }), "fail: limit pids is 9, not 1024", 1},
		{"limit not in force", receipt(func(r *audit.Receipt, _ *audit.Identity) { r.Limits[0].Found = "" }), "fail: limit pids is not in force", 1},
		{"passthrough", func(f *fake) { f.binding("passthrough") }, "ok: under passthrough, which promises nothing", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			c.change(f)
			r := f.look(Options{Checks: []string{"canary"}, Handlers: []string{"metsuke"}})
			if !has(r, c.want) || len(r.Findings) != 1 {
				t.Errorf("not found: %s\n%s", c.want, findings(f, r))
			}
			whole(t, r)
			if f.server.Ran() != c.ran {
				t.Errorf("%d canaries, want %d", f.server.Ran(), c.ran)
			}
			stays := c.name == "cannot be removed"
			if left := f.server.Pods(); len(left) > 0 != stays {
				t.Errorf("left: %q", left)
			}
			if streams, err := f.Tree.ReadDir("/var/log/metsuke/audit"); err != nil || len(streams) > 0 != stays {
				t.Errorf("streams: %v, %v", streams, err)
			}
			fmt.Fprintf(&all, "## canary: %s\n%s\n", c.name, findings(f, r))
		})
	}
	if !t.Failed() {
		golden(t, "canary.txt", uids.ReplaceAllString(all.String(), "UID"))
	}
}

// A doctor that is interrupted removes its canary all the same.
func TestCanaryInterrupted(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	start := f.server.Scenario.OnStart
	f.server.Scenario.OnStart = func(p *runtimeapi.PodSandboxConfig, handler string, c *runtimeapi.ContainerConfig) error {
		cancel()
		return start(p, handler, c)
	}
	f.dial()
	r, err := Run(ctx, f.Node, Options{Checks: []string{"canary"}, Handlers: []string{"metsuke"}})
	if err != nil || r.Healthy() {
		t.Errorf("%v\n%s", err, findings(f, r))
	}
	if left := f.server.Pods(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// systemd makes a cgroup only below a slice. Where we make it ourselves, its parent is one that is there anyway.
func TestCanaryCgroup(t *testing.T) {
	f := newFake(t)
	parents := map[string]string{}
	start := f.server.Scenario.OnStart
	f.server.Scenario.OnStart = func(p *runtimeapi.PodSandboxConfig, handler string, c *runtimeapi.ContainerConfig) error {
		parents[handler] = p.GetLinux().GetCgroupParent()
		return start(p, handler, c)
	}
	if r := f.look(Options{Checks: []string{"canary"}}); !r.Healthy() || parents["metsuke"] != "/" || parents["metsuke-kata"] != "" {
		t.Errorf("%q\n%s", parents, findings(f, r))
	}
	f.write("/etc/metsuke/config.toml", "version = 1\ndelegate.options.SystemdCgroup = true\n", 0o644)
	if r := f.look(Options{Checks: []string{"canary"}}); !r.Healthy() || parents["metsuke"] != "system.slice" || parents["metsuke-kata"] != "" {
		t.Errorf("%q\n%s", parents, findings(f, r))
	}
}
