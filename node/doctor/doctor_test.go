// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// write is what a report looks like to people, and in JSON.
func write(t *testing.T, f *fake, r *Report) (text, asJSON string) {
	t.Helper()
	var b, j bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	enc := json.NewEncoder(&j)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		t.Fatal(err)
	}
	out := strings.NewReplacer(f.dir, "")
	return out.Replace(b.String()), out.Replace(j.String())
}

func TestHealthy(t *testing.T) {
	f := newFake(t)
	r := f.look(Options{})
	text, asJSON := write(t, f, r)
	golden(t, "healthy.txt", text)
	golden(t, "healthy.json", asJSON)
	if !r.Healthy() {
		t.Error("it is not healthy")
	}
	if left := f.server.Pods(); len(left) > 0 {
		t.Errorf("canaries are left: %q", left)
	}
	if entries, err := f.Tree.ReadDir("/var/log/metsuke/audit"); err != nil || len(entries) > 0 {
		t.Errorf("streams are left: %v, %v", entries, err)
	}
}

// The texts of an ill node, in both forms: hostile ones cannot reach the terminal.
func TestIll(t *testing.T) {
	f := newFake(t)
	f.inForce["metsuke"]["PodAnnotations"] = []string{"\x1b[2J*"}
	f.chmod(guest, 0o700)
	f.write("/etc/metsuke/profiles.d/team.yaml", "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: coder}\nspec:\n  limits: {pid: 5}\n", 0o644)
	f.programs["/usr/bin/runc"] = "runc version 1.3.3\x1b]0;owned\x07\u202e\xff\n"
	f.shim = func(string) error { return errors.New("create container: \x1b[31mno\nreceipt") }
	r := f.look(Options{})
	text, asJSON := write(t, f, r)
	golden(t, "ill.txt", text)
	golden(t, "ill.json", asJSON)
	if r.Healthy() {
		t.Error("it is healthy")
	}
	for what, s := range map[string]string{"text": text, "JSON": asJSON} {
		if strings.ContainsAny(s, "\x1b\x07\u202e") || !utf8.ValidString(s) {
			t.Errorf("the %s has what a terminal acts on", what)
		}
	}
}

func TestChoice(t *testing.T) {
	f := newFake(t)
	r := f.look(Options{Checks: []string{"canary", "kernel", "handlers"}, Handlers: []string{"metsuke", "other", "runc"}, NoCanary: true})
	var got []string
	for _, x := range r.Findings {
		got = append(got, x.Check+" "+x.Subject+" "+string(x.Severity))
	}
	want := "kernel  ok|handlers other fail|handlers runc fail|handlers metsuke ok"
	if strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
	if f.server.Ran() > 0 {
		t.Error("a canary was run")
	}
	if _, err := Run(t.Context(), f.Node, Options{Checks: []string{"nose"}}); !errors.Is(err, ErrUnknownCheck) {
		t.Error(err)
	}
}

// One handler's fault is not another's.
func TestExamine(t *testing.T) {
	f := newFake(t)
	f.dial()
	well := []Health{{Handler: "metsuke", Ready: true}, {Handler: "metsuke-kata", Ready: true}}
	if diff := cmp.Diff(well, examine(t.Context(), f.Node)); diff != "" {
		t.Error(diff)
	}
	f.remove("/dev/kvm")
	ill := []Health{{Handler: "metsuke", Ready: true}, {Handler: "metsuke-kata", Reason: "kata, " + qemuConfig + ": the node has no /dev/kvm; " +
		"modprobe kvm_intel or kvm_amd; on a virtual node, have nested virtualisation switched on"}}
	if diff := cmp.Diff(ill, examine(t.Context(), f.Node)); diff != "" {
		t.Error(diff)
	}
	f.CRI, f.CRIError = nil, errors.New("no")
	if got := examine(t.Context(), f.Node); got != nil {
		t.Errorf("%+v", got)
	}
	if got, err := Examine(t.Context(), Place{Root: f.dir}); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
