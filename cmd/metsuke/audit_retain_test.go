// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/retention"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// retainedNode is a node with a stream of some segments, all but the last one old, and a configuration that removes such.
func retainedNode(t *testing.T) (root, config string) {
	t.Helper()
	dir := t.TempDir()
	root, config = filepath.Join(dir, "audit"), filepath.Join(dir, "config.toml")
	key, err := signature.LoadOrMake(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	text := "version = 1\ndirectories.audit = \"" + root + "\"\n[audit]\nkey = \"" + filepath.Join(dir, "key.pem") +
		"\"\n[audit.retention]\nmax_age = \"24h\"\ncheckpoints = \"" + dir + "\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	id := audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "u", Container: "agent", ContainerID: "c"}
	w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{Key: key, SegmentBytes: 9000})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 60 {
		if err := w.Append(&audit.Event{Time: auditMoment, Kind: audit.KindOOM, OOM: &audit.OOM{}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(stream.Dir(root, id), stream.SegmentName(1))
	if err := os.Chtimes(first, auditMoment, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	return root, config
}

func TestAuditRetain(t *testing.T) {
	root, config := retainedNode(t)
	const name = "team-a_coder_u/agent"
	code, out, errs := cli("", "audit", "retain", "--config", config, "--dry-run")
	if code != 0 || errs != "" || !strings.Contains(out, "would be compressed: 00000001.ndjson of "+name) || !strings.Contains(out, "would be removed: segments 1 to ") {
		t.Errorf("dry run: %d, %q, %q", code, out, errs)
	}
	code, out, errs = cli("", "audit", "retain", "--config", config, "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var action retention.Action
	var last struct{ Report retention.Report }
	if code != 0 || errs != "" || len(lines) < 3 || json.Unmarshal([]byte(lines[len(lines)-2]), &action) != nil ||
		json.Unmarshal([]byte(lines[len(lines)-1]), &last) != nil {
		t.Fatalf("%d, %q, %q", code, out, errs)
	}
	if action.Kind != retention.Removed || action.Stream != name || action.From != 1 || last.Report.Segments != action.To || last.Report.Compressed != action.To {
		t.Errorf("%+v, %+v", action, last.Report)
	}
	if code, out, _ := cli("", "audit", "verify", "--config", config, "--dir", root, "--node"); code != 0 || !strings.Contains(out, "note removed: removals") {
		t.Errorf("verify: %d, %q", code, out)
	}
	if code, out, errs := cli("", "audit", "retain", "--config", config); code != 0 || errs != "" || !strings.HasPrefix(out, "1 streams take ") {
		t.Errorf("nothing to do: %d, %q, %q", code, out, errs)
	}
}

func TestAuditRetainRefuses(t *testing.T) {
	root, config := retainedNode(t)
	if code, _, errs := cli("", "audit", "retain", "--every", "1ms"); code != 2 || !strings.Contains(errs, "at least 1s") {
		t.Errorf("--every: %d, %q", code, errs)
	}
	if code, _, errs := cli("", "audit", "retain", "--config", config, "--dir", root+"/none"); code != 1 || !strings.Contains(errs, "no audit directory") {
		t.Errorf("--dir: %d, %q", code, errs)
	}
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(data, "shipped = [\"siem\"]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := cli("", "audit", "retain", "--config", config)
	if code != 0 || errs != "" || strings.Contains(out, "removed: ") || !strings.Contains(out, "sinks have not confirmed") {
		t.Errorf("nothing is confirmed: %d, %q, %q", code, out, errs)
	}
	// Another manifest than was signed: its stream stays, and that is said.
	path := filepath.Join(stream.Dir(root, audit.Identity{Namespace: "team-a", Pod: "coder", PodUID: "u", Container: "agent"}), "manifest")
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("x"), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := cli("", "audit", "retain", "--config", config); code != 1 || !strings.Contains(errs, "it is left as it is") {
		t.Errorf("a changed manifest: %d, %q", code, errs)
	}
}
