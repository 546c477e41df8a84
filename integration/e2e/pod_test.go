// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/integration/stand"
)

// want fails unless the container's stream has an event that fits.
func want(t *testing.T, events []stand.Event, what string, fits func(stand.Event) bool) stand.Event {
	t.Helper()
	for _, e := range events {
		if fits(e) {
			return e
		}
	}
	t.Errorf("no event: %s", what)
	return stand.Event{}
}

func denied(syscall, rule string) func(stand.Event) bool {
	return func(e stand.Event) bool { return e.Verdict == "denied" && e.Syscall == syscall && e.RuleID == rule }
}

// A pod's life in its stream: receipt, the workload's execve, what it does, what it is denied, its end.
func TestPodIsHeldAndRecorded(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		out := p.shell("cat /proc/self/status; unshare -m true; echo status $?").output()
		if field(out, "Seccomp") != "2" || field(out, "NoNewPrivs") != "1" || !strings.Contains(out, "status 1") {
			t.Errorf("output:\n%s", out)
		}
		h.eventually("exit record", func() error {
			if last := stand.Last(p.events("main")); last.Kind != "exit" {
				return fmt.Errorf("the last record is %s", last.Raw)
			}
			return nil
		})
		events := p.events("main")
		if events[0].Kind != "start" || events[1].Syscall != "execve" || events[1].Comm != "guest" {
			t.Errorf("first records:\n%s\n%s", events[0].Raw, events[1].Raw)
		}
		want(t, events, "unshare denied", denied("unshare", "no-namespaces"))
		dirs, err := p.StreamDirs(baseline)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := segment.CheckChain(dirs["main"]); err != nil || n != uint64(len(events)) {
			t.Errorf("chain of %d records: %d, %v", len(events), n, err)
		}
		p.remove()
		if after := p.events("main"); len(after) != len(events) {
			t.Errorf("removing the pod in order added %s", after[len(after)-1].Raw)
		}
	})
}

// What passthrough gives is what the delegate alone gives.
func TestPassthroughChangesNothing(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		script := "cat /proc/self/status /proc/1/cmdline /proc/self/mountinfo; env; ulimit -a; ls -a /; cat /proc/self/cgroup"
		var outs [2]string
		for i, handler := range []string{delegate.Name, passthrough} {
			p := h.pod(stand.PodConfig{Handler: handler, Name: "same"})
			c := p.shell(script)
			outs[i] = anonymous(c.output(), c)
			p.remove()
		}
		if outs[0] != outs[1] {
			t.Errorf("alone:\n%s\nthrough Metsuke:\n%s", outs[0], outs[1])
		}
		if streams, err := stream.List(h.AuditDir(passthrough)); len(streams) != 0 {
			t.Errorf("streams of a pod that is not audited: %v, %v", streams, err)
		}
	})
}

// anonymous removes what differs between any two containers.
func anonymous(out string, c *container) string {
	var kept []string
	for line := range strings.Lines(strings.ReplaceAll(out, c.ID, "ID")) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Pid", "Tgid", "Ngid", "PPid", "NSpid", "NStgid", "NSpgid", "NSsid", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches",
			"SigQ", "RssShmem", "VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon", "RssFile", "VmData", "VmStk", "VmLib", "VmExe", "VmPTE", "Cpus_allowed", "Mems_allowed":
			continue
		}
		if fields := strings.Fields(line); len(fields) > 6 && strings.Contains(line, " - ") { // mountinfo: no ids, no devices
			line = strings.Join(fields[4:6], " ") + strings.SplitN(line, " - ", 2)[1][:4] + "\n"
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

func TestRules(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned})
		for _, test := range []struct {
			name, script, out string
			status            int32
			event             func(stand.Event) bool
		}{
			{"deny", "workload syscall getppid", "getppid: EPERM\n", 0, denied("getppid", "")},
			{"condition-met", "workload syscall personality 8", "personality: ENOTTY\n", 0, denied("personality", "")},
			{"condition-not-met", "workload syscall personality 0", "personality = 0\n", 0, nil},
			{"kill", "{ workload syscall syslog; } 2>/dev/null; echo $?", "137\n", 0, func(e stand.Event) bool { return e.Verdict == "killed" && e.Syscall == "syslog" }},
			{"parent", "workload syscall bpf", "bpf: EPERM\n", 0, denied("bpf", "no-bpf")},
			{"write", "echo x > /tmp/f", "", 0, func(e stand.Event) bool { return e.Class == "file-write" && strings.Contains(e.Raw, "/tmp/f") }},
		} {
			c := p.run(stand.ContainerConfig{Name: test.name, Command: []string{"sh", "-c", test.script}})
			status := c.wait()
			if out := c.written(); out != test.out || status.GetExitCode() != test.status {
				t.Errorf("%s: output %q, status %d", test.name, out, status.GetExitCode())
			}
			events := p.events(test.name)
			if test.event != nil {
				want(t, events, test.name, func(e stand.Event) bool {
					return test.event(e) || (e.Verdict == "denied" && e.Origin == "tuned" && test.event(withRule(e, "")))
				})
			}
		}
		// A read-only open is not even notified.
		c := p.run(stand.ContainerConfig{Name: "reader", Command: []string{"cat", "/etc/passwd"}})
		c.wait()
		for _, e := range p.events("reader") {
			if e.Class == "file-write" {
				t.Errorf("audited as a write: %s", e.Raw)
			}
		}
	})
}

func withRule(e stand.Event, rule string) stand.Event { e.RuleID = rule; return e }

func TestSelection(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		choose := func(profile string) map[string]string { return map[string]string{"metsuke.dev/profile": profile} }
		p := h.pod(stand.PodConfig{Handler: tuned, Annotations: choose("inherits")})
		if out := p.shell("cat /proc/self/status").output(); field(out, "NoNewPrivs") != "0" || field(out, "Seccomp") != "2" {
			t.Errorf("inherits:\n%s", out)
		}
		for _, refused := range []stand.PodConfig{
			{Handler: tuned, Annotations: choose("passthrough")},
			{Handler: tuned, Annotations: choose("nonesuch")},
			{Handler: tuned, Namespace: "nobody"},
		} {
			if _, err := h.RunPod(h.ctx, refused); err == nil || !strings.Contains(err.Error(), "not allow") {
				t.Errorf("%+v: %v, want a refusal", refused, err)
			}
		}
	})
}

// A broken edit refuses new pods, says where it is broken, and harms nothing that runs.
func TestBrokenEdit(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		running := h.pod(stand.PodConfig{Handler: tuned}).idle()
		file := filepath.Join(h.ProfilesDir(tuned), "broken.yaml")
		if err := os.WriteFile(file, []byte("apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: x}\nspec: {seccmp: {}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		_, err := h.RunPod(h.ctx, stand.PodConfig{Handler: tuned})
		if err == nil || !strings.Contains(err.Error(), "broken.yaml:4") || !strings.Contains(err.Error(), "seccomp") {
			t.Errorf("error %v, want file, line and suggestion", err)
		}
		if out := running.exec("echo", "fine"); out != "fine\n" {
			t.Errorf("exec wrote %q", out)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		h.pod(stand.PodConfig{Handler: tuned}).shell("true").output()
	})
}

func TestLimits(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned})
		c := p.run(stand.ContainerConfig{
			Command: []string{"workload", "pause"},
			Limits:  &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 30, CpuPeriod: 100000, CpuQuota: 400000},
		})
		want(t, p.events("main"), "memory lowered at create", func(e stand.Event) bool {
			return e.Kind == "limit" && strings.Contains(e.Raw, `"operation":"create"`) && strings.Contains(e.Raw, `"resource":"memory"`)
		})
		c.forksTooMany("at start")
		quota, period := int64(30000), uint64(100000)
		if err := c.updateTask(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}); err != nil {
			t.Fatal(err)
		}
		c.forksTooMany("after an Update of the CPU")
		_, err := h.Runtime.UpdateContainerResources(h.ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 512 << 20, CpuPeriod: 100000, CpuQuota: 20000},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.forksTooMany("after an Update of memory and CPU")
		want(t, p.events("main"), "memory lowered at update", func(e stand.Event) bool {
			return e.Kind == "limit" && strings.Contains(e.Raw, `"operation":"update"`) && strings.Contains(e.Raw, `"resource":"memory"`)
		})
		hog := p.run(stand.ContainerConfig{Name: "hog", Command: []string{"sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"}})
		if status := hog.wait(); status.GetExitCode() != 137 {
			t.Errorf("hog: %d %s", status.GetExitCode(), status.GetReason())
		}
		h.eventually("oom and exit records, and CRI's reason, which may come after the exit", func() error {
			oom, cause := false, false
			for _, e := range p.events("hog") {
				oom = oom || e.Kind == "oom"
				cause = cause || e.Kind == "exit" && e.Fields["cause"] == "oom"
			}
			if !oom || !cause {
				return errors.New("there is no oom record, or the exit does not name it")
			}
			status, err := hog.Status(h.ctx)
			if err == nil && status.GetReason() != "OOMKilled" {
				err = fmt.Errorf("CRI says %s", status.GetReason())
			}
			return err
		})
	})
}

// The pod's own seccomp profile stays in force, and its denials are in the stream with their origin.
func TestPodSeccomp(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned, Annotations: map[string]string{"metsuke.dev/profile": "inherits"}})
		c := p.run(stand.ContainerConfig{
			Command: []string{"workload", "syscall", "mount"},
			Modify: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
			},
		})
		if out := c.output(); out != "mount: EPERM\n" {
			t.Errorf("output %q", out)
		}
		want(t, p.events("main"), "denied by the pod's profile", func(e stand.Event) bool {
			return e.Verdict == "denied" && e.Syscall == "mount" && e.Origin == "pod"
		})
	})
}

// What cannot be run fails as with the delegate alone.
func TestStartErrors(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		alone, through := h.pod(stand.PodConfig{}), h.pod(stand.PodConfig{Handler: baseline})
		for i, command := range [][]string{{"/nonesuch"}, {"nonesuch"}, {"/etc"}, {"/etc/passwd"}} {
			var texts, execs [2]string
			for j, p := range []*pod{alone, through} {
				c := p.create(stand.ContainerConfig{Name: fmt.Sprintf("c%d", i), Command: command})
				err := c.Start(h.ctx)
				if err == nil {
					t.Fatalf("%v started", command)
				}
				texts[j] = strings.ReplaceAll(err.Error(), c.ID, "ID")
				status, err := c.Status(h.ctx)
				if err != nil {
					t.Fatal(err)
				}
				texts[j] += fmt.Sprint(" ", status.GetExitCode(), " ", status.GetReason())
				idle := p.run(stand.ContainerConfig{Name: fmt.Sprintf("i%d", i), Command: []string{"workload", "pause"}})
				result, err := idle.Exec(h.ctx, command...)
				execs[j] = fmt.Sprint(result.Status, " ", err)
			}
			end := func(s string) string {
				s = s[max(strings.LastIndex(s, "exec: \""), 0):]
				if delegate == stand.Kata { // whose shim makes a code of the words "not found", which containerd 1.7 appends
					s = strings.TrimSuffix(strings.TrimSuffix(s, ": not found"), ": unknown")
				}
				return s
			}
			if end(texts[0]) != end(texts[1]) {
				t.Errorf("%v:\nalone   %s\nthrough %s", command, texts[0], texts[1])
			}
			if end(execs[0]) != end(execs[1]) {
				t.Errorf("exec of %v:\nalone   %s\nthrough %s", command, execs[0], execs[1])
			}
		}
	})
}

func TestImages(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		readOnly := func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true }
		user := func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 4242}
		}
		privileged := func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = false }
		for name, config := range map[string]stand.ContainerConfig{
			"scratch":  {Image: stand.ImageScratch, Args: []string{"syscall", "getpid"}},
			"readonly": {Command: []string{"workload", "syscall", "getpid"}, Modify: readOnly},
			"user":     {Command: []string{"workload", "syscall", "getpid"}, Modify: user},
			"plain":    {Command: []string{"workload", "syscall", "getpid"}, Modify: privileged},
		} {
			config.Name = name
			if out := p.run(config).output(); out != "getpid = 1\n" {
				t.Errorf("%s: %q", name, out)
			}
		}
	})
}

// Sessions are told apart, many at once.
func TestExecSessions(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.idle()
		results := make(chan error, 10)
		for i := range cap(results) {
			go func() {
				result, err := c.Exec(h.ctx, "sh", "-c", fmt.Sprintf("echo session-%d; exit %d", i, i))
				if err == nil && (result.Status != int32(i) || result.Stdout != fmt.Sprintf("session-%d\n", i)) {
					err = fmt.Errorf("session %d: %+v", i, result)
				}
				results <- err
			}()
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		sessions := map[string]int{}
		for _, e := range p.events("main") {
			if e.Exec != "" && (e.Kind == "exec" || e.Syscall == "execve" && e.Comm == "guest") {
				sessions[e.Exec]++
			}
		}
		if len(sessions) != cap(results) {
			t.Errorf("%d sessions in the stream", len(sessions))
		}
		for id, n := range sessions {
			if n != 2 {
				t.Errorf("session %s: %d records of its begin", id, n)
			}
		}
	})
}

// A first process that leaves its mount namespace could show the delegate another helper: its execs are refused. (Kata's agent
// gives an exec the namespaces that it made at Create, whatever the first process did since: TestExecAfterUnshareInGuest.)
func TestExecAfterUnshare(t *testing.T) {
	only(t, stand.Runc)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned, Annotations: map[string]string{"metsuke.dev/profile": "inherits"}})
		c := p.run(stand.ContainerConfig{
			Command: []string{"unshare", "-m", "sh", "-c", "echo unshared; sleep 1000"},
			Modify: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
			},
		})
		h.eventually("the new namespace", func() error {
			if c.written() != "unshared\n" {
				return errors.New("not yet")
			}
			return nil
		})
		if result, err := c.Exec(h.ctx, "true"); err == nil || !strings.Contains(err.Error(), "mount namespace") {
			t.Errorf("exec: %+v, %v", result, err)
		}
	})
}
