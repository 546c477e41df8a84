// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/node/doctor/report"
	"metsuke.dev/metsuke/node/pods/podstest"
)

// teams is a stand with two teams, of which alice is in one and the auditor may read all.
func teams(t *testing.T) *stand {
	s := newStand(t)
	for i, namespace := range []string{"team-a", "team-b"} {
		id := strings.Repeat(string(rune('a'+i)), 12)
		s.pod(podstest.Pod{Namespace: namespace, Name: "coder", ID: id, Containers: []podstest.Container{{
			Name: "agent", ID: "c" + id, State: tasktypes.Status_RUNNING, Events: []audit.Event{
				{Time: podstest.Moment, Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "execve", Class: "exec", Verdict: audit.VerdictAllowed,
					Args: []audit.Arg{{Name: "path", Value: "/bin/\x1b[2J", Evidence: audit.EvidencePeeked}}}},
				{Time: podstest.Moment.Add(time.Second), Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "bpf", Verdict: audit.VerdictDenied, Errno: "EPERM"}},
			},
		}}})
	}
	s.objects["/apis/metsuke.dev/v1alpha1/agentprofiles/strict"] = map[string]any{
		"apiVersion": "metsuke.dev/v1alpha1", "kind": "AgentProfile", "metadata": map[string]any{"name": "strict", "generation": 3},
		"spec": map[string]any{"extends": []any{"baseline"}}, "status": map[string]any{
			"inForce": map[string]any{"generation": 2, "digest": "77aa77aa77aa77aa"}, "nodes": map[string]any{"total": 5, "acknowledged": 4, "refused": 1},
			"conditions": []any{map[string]any{"type": "Accepted", "status": "False", "message": "no\x1b[2J", "reason": "Invalid", "lastTransitionTime": nil}},
		},
	}
	s.objects["/apis/metsuke.dev/v1alpha1/accepteddocuments/agentprofile.strict"] = map[string]any{
		"apiVersion": "metsuke.dev/v1alpha1", "kind": "AcceptedDocument", "metadata": map[string]any{"name": "agentprofile.strict"},
		"spec": map[string]any{"kind": "AgentProfile", "name": "strict", "generation": 2, "document": map[string]any{"extends": []any{"baseline"}}},
	}
	s.report = report.Report{Version: "v1\x1b[2J", Findings: []report.Finding{{Check: "kernel", Severity: report.Fail, Found: "old\x1b[2J", Breaks: "all", Fix: "upgrade"}}}
	s.allow("alice list agentpods team-a", "alice get agentpods team-a", "alice get agentpods/log team-a",
		"auditor list agentpods ", "auditor get agentpods/log team-b", "operator get doctorreports ")
	return s
}

// The whole way: plugin, API server, door, agent. Each sees what their roles allow, and learns why not.
func TestChain(t *testing.T) {
	s := teams(t)
	for _, tt := range []struct {
		user      string
		args      string
		code      int
		out, errs string
	}{
		{"alice", "ps", 0, "team-a     coder  agent      baseline", ""},
		{"alice", "ps -o json coder", 0, `"namespace":"team-a"`, ""},
		{"alice", "ps nobody", 0, "NAMESPACE", ""},
		{"alice", "ps -n team-b", 1, "NAMESPACE", `user "alice" may not list agentpods in API group reader.metsuke.dev in namespace team-b`},
		{"alice", "ps -A", 1, "NAMESPACE", `may not list agentpods in API group reader.metsuke.dev in the cluster`},
		{"auditor", "ps -A", 0, "team-b     coder", ""},
		{"auditor", "ps -A --node n2", 1, "NAMESPACE", "no agent of Metsuke's reports for node n2"},
		{"alice", "inspect coder", 0, "team-a/coder  running", ""},
		{"alice", "inspect coder -o json --denials 1", 0, `"name": "coder"`, ""},
		{"alice", "inspect coder -n team-b", 1, "", "may not get agentpods"},
		{"alice", "inspect gone", 1, "", "there is no pod team-a/gone now"},
		{"alice", "inspect gone --node n1", 1, "", "no pod team-a/gone runs under Metsuke on node n1"},
		{"alice", "inspect coder --denials 9999", 2, "", "must be a count"},
		{"alice", "inspect", 2, "", "accepts 1 arg"},
		{"alice", "tail coder", 0, `execve("/bin/\x1b[2J")`, ""},
		{"alice", "tail coder --tail 1", 0, "denied   bpf()  EPERM", ""},
		{"alice", "tail coder --verdict denied,killed --since 2026-01-01T00:00:00Z", 0, "bpf", ""},
		{"alice", "tail coder coder -o json --node n1", 0, `"syscall":"execve"`, ""},
		{"alice", "tail coder --syscall bpf --tail all -o table", 0, "bpf()  EPERM", ""},
		{"alice", "tail coder --path /bin/** --tail all -o wide", 0, `execve("/bin/\x1b[2J")`, ""},
		{"alice", "tail coder --path /none/a,b --addr :443 --tail all", 0, "", ""},
		{"alice", "tail coder --process 77777 --tail all -o ocsf", 0, "", ""},
		{"alice", "tail coder --tail all -o ocsf", 0, `"class_name":"Process Activity"`, ""},
		{"alice", "tail coder --addr nowhere", 2, "", "must be an address"},
		{"alice", "tail coder -n team-b", 1, "", "may not get agentpods/log"},
		{"alice", "tail coder --verdict maybe", 2, "", "must be one of"},
		{"alice", "tail coder --tail 5000", 2, "", "count of 1000 at most"},
		{"auditor", "tail coder -n team-b", 0, "team-b/coder", ""},
		{"operator", "doctor", 0, "n1    metsuke-runc  yes", ""},
		{"operator", "doctor n1", 1, `fail: kernel: old\x1b[2J`, ""},
		{"alice", "doctor n1", 1, "", "may not get doctorreports"},
		{"alice", "profile list", 0, `AgentProfile  strict  3           2         77aa77aa77aa  4/5    1        no: no\x1b[2J`, ""},
		{"alice", "profile list -o json", 0, `"acknowledged": 4`, ""},
		{"alice", "profile show strict", 0, `"generation": 2`, ""},
		{"alice", "profile show none", 1, "", "there is none"},
		{"alice", "profile show", 2, "", "accepts 1 arg"},
		{"alice", "nonsense", 2, "", "unknown command"},
	} {
		code, out, errs := s.kubectl(t.Context(), tt.user, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) || tt.errs == "" && errs != "" {
			t.Errorf("%s: %s: %d\n%s\n%s", tt.user, tt.args, code, out, errs)
		}
		if strings.Contains(out+errs, "\x1b") {
			t.Errorf("%s: %s: a terminal would act on %q", tt.user, tt.args, out+errs)
		}
		if tt.user == "alice" && strings.Contains(out, "team-b") {
			t.Errorf("alice sees another team by %s:\n%s", tt.args, out)
		}
	}
}

// What is written while somebody follows comes through all the way, and an interrupt is the way to end it.
func TestFollow(t *testing.T) {
	s := teams(t)
	ctx, interrupt := context.WithTimeout(t.Context(), time.Minute)
	defer interrupt()
	id := audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "u2", Container: "late"}
	w, err := stream.OpenWriter(stream.Dir(s.Audit(), id), id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out := &watched{until: "status 7", then: interrupt}
	done := make(chan struct{})
	go func() { // again and again: when the plugin begins to follow is not known
		defer close(done)
		for ctx.Err() == nil {
			_ = w.Append(&audit.Event{Time: podstest.Moment, Kind: audit.KindExit, Exit: &audit.Exit{Status: 7}})
			time.Sleep(20 * time.Millisecond)
		}
	}()
	code, errs := s.into(ctx, "alice", out, "tail", "-f", "coder", "--tail", "0")
	interrupt()
	<-done
	if code != 0 || errs != "" || !out.seen {
		t.Errorf("%d %s", code, errs)
	}
}

// A node that was taken over can neither answer for pods that it was not asked about nor print what acts on a terminal.
func TestHostileLines(t *testing.T) {
	for line, ok := range map[string]bool{`{"v":1,"comm":"a"}`: true, "{\"v\":1,\"comm\":\"\x7f\"}": false, "{\"v\":1,\"comm\":\"\u202e\"}": false, "\u009b": false} {
		if harmless([]byte(line)) != ok {
			t.Errorf("%q: %v", line, !ok)
		}
	}
	if _, err := record.Parse([]byte(`{"problem":"x"}`)); err == nil {
		t.Error("a problem passes for a record")
	}
}
