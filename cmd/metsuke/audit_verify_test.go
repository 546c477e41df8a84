// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// signedStreams writes two pods' streams, signed with the key of a configuration.
func signedStreams(t *testing.T) (root, config string) {
	t.Helper()
	dir := t.TempDir()
	root, config = filepath.Join(dir, "audit"), filepath.Join(dir, "config.toml")
	path := filepath.Join(dir, "key.pem")
	key, err := signature.LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("version = 1\n[audit]\nkey = \""+path+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"coder", "other"} {
		id := audit.Identity{Namespace: "team-a", Pod: pod, PodUID: "u", Container: "agent", ContainerID: "c"}
		w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []audit.Event{
			{Time: auditMoment, Kind: audit.KindOOM, OOM: &audit.OOM{}}, {Time: auditMoment, Kind: audit.KindEnd, End: &audit.End{Records: 1}},
		} {
			if err := w.Append(&e); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return root, config
}

func TestAuditVerify(t *testing.T) {
	root, config := signedStreams(t)
	code, key, errs := cli("", "audit", "key", "--config", config)
	if code != 0 || !strings.HasPrefix(key, "Fingerprint: ") || !strings.Contains(key, "BEGIN PUBLIC KEY") || errs != "" {
		t.Fatalf("key: %d, %q, %q", code, key, errs)
	}
	public := filepath.Join(t.TempDir(), "node.pem")
	if err := os.WriteFile(public, []byte(key), 0o644); err != nil {
		t.Fatal(err)
	}
	one := stream.Dir(root, audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "u", Container: "agent"})
	const coder, other, ledger = "team-a_coder_u/agent", "team-a_other_u/agent", "the node's ledger"
	none := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(none, []byte("version = 1\n[audit]\nkey = \"/none/key.pem\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string // words of the lines, in their order
	}{
		{[]string{"--node", "--config", config}, 0, "proven " + coder + " proven " + other + " proven " + ledger},
		{[]string{"--node", "--key", public}, 0, "proven " + coder + " proven " + other + " proven " + ledger},
		{[]string{"coder", "--key", public}, 0, "proven " + coder + " proven " + ledger},
		{[]string{"team-a/other", "--key", public}, 0, "proven " + other + " proven " + ledger},
		{[]string{one, "--key", public}, 0, "proven " + coder},
		{[]string{filepath.Dir(one), "--key", public}, 0, "proven " + coder},
		{[]string{root, "--key", public}, 0, "proven " + coder + " proven " + other + " proven " + ledger},
		{[]string{"--node", "--config", none}, 3, "unknown " + coder + " unknown " + other + " unknown " + ledger},
		{[]string{"nobody", "--key", public}, 1, "proven " + ledger},
		{[]string{"/nowhere", "--key", public}, 1, ""},
		{[]string{"--node", "--key", none}, 1, ""},
		{nil, 2, ""},
		{[]string{"--node", "coder"}, 2, ""},
		{[]string{"--nonsense"}, 2, ""},
	} {
		code, out, errs := cli("", append([]string{"audit", "verify", "--dir", root}, tt.args...)...)
		var got []string
		for line := range strings.Lines(out) {
			verdict, rest, _ := strings.Cut(line, " ")
			if strings.HasPrefix(line, " ") {
				continue
			}
			name, _, _ := strings.Cut(strings.TrimSpace(rest), ":")
			got = append(got, verdict, name)
		}
		if code != tt.code || strings.Join(got, " ") != tt.want || code != 0 && code != 3 && errs == "" {
			t.Errorf("%q: code %d, want %d; %q\n%s%s", tt.args, code, tt.code, got, out, errs)
		}
	}
}

func TestAuditVerifyFault(t *testing.T) {
	root, config := signedStreams(t)
	path := filepath.Join(stream.Dir(root, audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "u", Container: "agent"}), "00000001.ndjson")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte(`"count":0`), []byte(`"count":7`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := cli("", "audit", "verify", "--dir", root, "--node", "--config", config)
	if code != 1 || errs != "" || !strings.Contains(out, "FAULT    team-a_coder_u/agent: ended, 2 records") ||
		!strings.Contains(out, "\n  fault record-changed: 00000001.ndjson, record 1: record 1 does not follow") || !strings.Contains(out, "proven   team-a_other_u/agent") {
		t.Errorf("code %d\n%s%s", code, out, errs)
	}
	code, out, _ = cli("", "audit", "verify", "--dir", root, "coder", "--config", config, "-o", "json")
	var first struct {
		Stream   string
		Verdict  string
		Findings []struct{ Code, File string }
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&first); err != nil || code != 1 || first.Verdict != "fault" ||
		first.Stream != "team-a_coder_u/agent" || len(first.Findings) == 0 || first.Findings[0].Code != "record-changed" {
		t.Errorf("code %d, %v\n%s", code, err, out)
	}
}
