// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/node/pods"
	"metsuke.dev/metsuke/node/pods/podstest"
	"metsuke.dev/metsuke/node/pods/show"
)

const running = tasktypes.Status_RUNNING

// podEvents are those of a container's life, one a second from podstest.Moment on.
func podEvents() []audit.Event {
	events := []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{
			Version: "v1.2.3", Kernel: "6.1.0", Placement: "host", Delegate: "io.containerd.runc.v2", SeccompMode: 2, Filters: 1,
			FilterDigest: "e6d750b0e949aaaa", NoNewPrivs: true, OnLoss: "kill", Limits: []audit.ReceiptLimit{
				{Name: "cpu", Asked: "150000 100000", Found: "150000 100000"}, {Name: "memory", Asked: "268435456", Found: "268435456"},
				{Name: "pids", Asked: "64", Found: "64"}, {Name: "memoryHigh", Asked: "1000", BestEffort: true},
			},
		}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: "create", Resource: "memory", Requested: "2Gi", Ceiling: "256Mi", Applied: "256Mi"}},
		{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "execve", Class: "exec", Verdict: audit.VerdictAllowed}},
		{Kind: audit.KindExec, Exec: "0123456789abcdef", ExecStart: &audit.ExecStart{Argv: []string{"sh", "-c", "x\x1b[2J"}}},
		{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "ptrace", Verdict: audit.VerdictDenied, Errno: "EPERM", Origin: "baseline", RuleID: "no-ptrace"}},
		{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "bpf\x1b[2J", Class: "privilege", Verdict: audit.VerdictKilled, Origin: "coder", RuleID: "no\tbpf"}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 3, Detail: "disk full\n"}},
	}
	for i := range events {
		events[i].Time = podstest.Moment.Add(time.Duration(i) * time.Second)
	}
	return events
}

// podNode is a node with a pod of every kind.
func podNode(t *testing.T) *podstest.Node {
	n := podstest.New(t)
	n.Add(podstest.Pod{Namespace: "agents", Name: "coder", ID: "3f9c0c1e77aa", Containers: []podstest.Container{
		{
			Name: "agent", ID: "a0a0a0a0a0a0a0a0", Image: "registry.example/coder:1", Events: podEvents(), State: running,
			Stats: &cgroup1.Metrics{
				Memory: &cgroup1.MemoryStat{TotalInactiveFile: 1 << 20, Usage: &cgroup1.MemoryEntry{Usage: 100<<20 + 99999, Limit: 200 << 20}},
				Pids:   &cgroup1.PidsStat{Current: 16, Limit: 64},
				CPU: &cgroup1.CPUStat{
					Usage: &cgroup1.CPUUsage{Total: 1_500_000_000}, Throttling: &cgroup1.Throttle{Periods: 90, ThrottledPeriods: 30, ThrottledTime: 20_000_000},
				},
			},
		},
		{Name: "sidecar", ID: "a1a1a1a1a1a1a1a1", Events: podEvents()[:1], State: tasktypes.Status_STOPPED, Exit: 137},
	}})
	n.Add(podstest.Pod{Namespace: "agents", Name: "vm", ID: "4a4a4a4a4a4a", Delegate: "io.containerd.kata-qemu.v2", Shim: podstest.Killed, Containers: []podstest.Container{
		{Name: "agent", ID: "b0b0b0b0b0b0", Events: podEvents(), State: running},
	}})
	n.Add(podstest.Pod{Namespace: "evil\x1b[2J", Name: "pod\tname", ID: "5b5b5b5b5b5b", Containers: []podstest.Container{
		{Name: "c\n\u202e", ID: "c0c0c0c0c0c0", Profile: "p\x9b", Events: podEvents()[5:6], State: running},
	}})
	n.Add(podstest.Pod{Namespace: "plain", Name: "web", ID: "6c6c6c6c6c6c", Containers: []podstest.Container{
		{Name: "server", ID: "d0d0d0d0d0d0", Profile: "passthrough", Passthrough: true, State: running},
	}})
	n.Add(podstest.Pod{Namespace: "plain", Name: "young", ID: "7d7d7d7d7d7d"})
	return n
}

// settled replaces what differs between runs of a test.
func settled(n *podstest.Node, text string) string {
	text = strings.ReplaceAll(text, n.Dir, "/NODE")
	return strings.ReplaceAll(text, fmt.Sprintf("process %d", os.Getpid()), "process 1234")
}

func TestPsGolden(t *testing.T) {
	n := podNode(t)
	list, err := (&pods.Node{StateDir: n.State(), Patience: time.Minute}).List(t.Context(), pods.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	now := podstest.Moment.Add(3 * time.Hour)
	for _, form := range []string{"table", "wide", "json"} {
		var out bytes.Buffer
		if form == "json" {
			err = show.JSON(&out, list)
		} else {
			err = show.Table(&out, list, form == "wide", now)
		}
		if err != nil {
			t.Fatal(err)
		}
		if form == "json" { // is held by tests of package pods; here: a pod a line
			for line := range strings.Lines(out.String()) {
				var p pods.Pod
				if err := json.Unmarshal([]byte(line), &p); err != nil {
					t.Error(err)
				}
			}
			if lines := strings.Count(out.String(), "\n"); lines != len(list) {
				t.Errorf("%d lines of JSON, want %d", lines, len(list))
			}
			continue
		}
		golden(t, "pods/ps-"+form+".txt", settled(n, out.String()))
	}
}

func TestInspectGolden(t *testing.T) {
	n := podNode(t)
	for _, test := range []struct {
		name     string
		options  pods.Options
		terminal bool
	}{
		{"coder", pods.Options{Denials: 10}, false},
		{"terminal", pods.Options{Denials: 1}, true},
		{"vm", pods.Options{Denials: 10}, false},
		{"web", pods.Options{}, false},
		{"hostile", pods.Options{Denials: 10}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := map[string]string{"terminal": "coder", "hostile": "5b5b"}[test.name]
			if pod == "" {
				pod = test.name
			}
			p, err := (&pods.Node{StateDir: n.State(), Patience: time.Minute}).Inspect(t.Context(), pod, test.options)
			if err != nil {
				t.Fatal(err)
			}
			for i := range p.Containers { // its digest is that of the built-in baseline
				if d := p.Containers[i].Drift; d != nil && d.Error == "" {
					d.Digest = "d1d1d1d1d1d1d1"
				}
			}
			var out bytes.Buffer
			if err := show.Pod(&out, p, podstest.Moment.Add(3*time.Hour), test.terminal); err != nil {
				t.Fatal(err)
			}
			if text := out.String(); strings.ContainsAny(strings.ReplaceAll(text, "\x1b[3", ""), "\x1b\u202e\u009b") && !test.terminal {
				t.Errorf("what could act on a terminal came through: %q", text)
			}
			golden(t, "pods/inspect-"+test.name+".txt", settled(n, out.String()))
		})
	}
}

func TestPodsExitCodes(t *testing.T) {
	n := podNode(t)
	config := "--config=" + n.Config()
	empty := podstest.New(t)
	ended := podstest.New(t)
	if err := os.MkdirAll(ended.State(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(ended.Audit(), "agents_old_u1", "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args     []string
		code     int
		out, err string // parts
	}{
		{[]string{"ps", config}, 1, "coder", "agents/vm: the shim is gone, its delegate"},
		{[]string{"ps", config, "--timeout", "1m", "coder", "plain/web"}, 0, "sidecar", ""},
		{[]string{"ps", config, "--namespace", "plain", "-o", "json"}, 0, `"profile":"passthrough"`, ""},
		{[]string{"ps", config, "nobody"}, 0, "NAMESPACE", ""},
		{[]string{"ps", "--config", empty.Config()}, 0, "NAMESPACE", "no pod has run under Metsuke"},
		{[]string{"ps", "--config", "/nowhere"}, 1, "", "/nowhere"},
		{[]string{"ps", "--timeout", "-1s"}, 2, "", "must be positive"},
		{[]string{"ps", "-o", "yaml"}, 2, "", "must be one of"},
		{[]string{"inspect", config, "agents/coder"}, 0, "container agent", ""},
		{[]string{"inspect", config, "-o", "json", "3f9c"}, 0, `"sandboxID": "3f9c0c1e77aa"`, ""},
		{[]string{"inspect", config, "vm"}, 1, "in the newest part of the stream", "not all could be found out"},
		{[]string{"inspect", config, "--since", "1h", "coder"}, 0, "since the time that was given", ""},
		{[]string{"inspect", config, "nobody\x1b"}, 1, "", `no pod nobody\x1b runs under Metsuke`},
		{[]string{"inspect", "--config", empty.Config(), "nobody"}, 1, "", "metsuke ps lists"},
		{[]string{"inspect", "--config", ended.Config(), "agents/old"}, 1, "", "metsuke audit tail -n all agents/old"},
		{[]string{"inspect"}, 2, "", "accepts 1 arg"},
		{[]string{"inspect", "-n", "1000", "coder"}, 2, "", "32 at most"},
		{[]string{"inspect", "--since", "x", "coder"}, 2, "", "must be a duration"},
	} {
		code, out, errs := cli("", test.args...)
		if code != test.code || !strings.Contains(out, test.out) || !strings.Contains(errs, test.err) || test.err == "" && errs != "" {
			t.Errorf("%q: code %d, want %d\nstdout %s\nstderr %s", test.args, code, test.code, out, errs)
		}
		if strings.Contains(errs, "\x1b") {
			t.Errorf("%q: stderr has an escape: %q", test.args, errs)
		}
	}
	n.Add(podstest.Pod{Namespace: "agents", Name: "coder", ID: "8e8e8e8e8e8e"})
	code, _, errs := cli("", "inspect", config, "coder")
	if code != 1 || !strings.Contains(errs, "8e8e8e8e8e8e  agents/coder\n") || !strings.Contains(errs, "3f9c0c1e77aa  agents/coder\n") {
		t.Errorf("two pods of one name: code %d\n%s", code, errs)
	}
}

func TestPodCompletion(t *testing.T) {
	n := podNode(t)
	for _, verb := range []string{"ps", "inspect"} {
		_, out, _ := cli("", "__complete", verb, "--config="+n.Config(), "")
		if !strings.Contains(out, "agents/coder\nagents/vm\n") || !strings.Contains(out, "plain/young\n") || strings.Contains(out, "\x1b") {
			t.Errorf("%s: %q", verb, out)
		}
	}
	if _, out, _ := cli("", "__complete", "inspect", "--config="+n.Config(), "agents/coder", ""); strings.Contains(out, "agents") {
		t.Errorf("inspect takes one pod: %q", out)
	}
	if _, out, _ := cli("", "__complete", "ps", "--config="+n.Config(), "agents/coder", ""); strings.Contains(out, "agents/coder") || !strings.Contains(out, "agents/vm") {
		t.Errorf("what was named already: %q", out)
	}
}
