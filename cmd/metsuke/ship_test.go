// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shipConfig writes a configuration for the streams of a root.
func shipConfig(t *testing.T, root, sinks string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ship.toml")
	text := fmt.Sprintf("version = 1\ndirectories = { audit = %q, checkpoints = %q }\n%s", root, filepath.Join(filepath.Dir(root), "ship"), sinks)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestShip(t *testing.T) {
	root, _ := signedStreams(t)
	out := filepath.Join(t.TempDir(), "out.ndjson")
	config := shipConfig(t, root, fmt.Sprintf("[[sinks]]\nname = \"a\"\ntype = \"file\"\nfile.path = %q\n[[sinks]]\nname = \"b\"\ntype = \"stdout\"\n", out))
	status := func() (all []shipStatus) {
		t.Helper()
		code, text, errs := cli("", "ship", "status", "--config", config, "-o", "json")
		if code != 0 || errs != "" {
			t.Fatalf("status: %d, %q", code, errs)
		}
		for line := range strings.Lines(text) {
			var s shipStatus
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return all
	}
	if s := status(); len(s) != 2 || s[0].Checkpoint || s[0].Behind != 2 || s[0].Backlog == 0 || s[0].Lag <= 0 || s[1].Sink != "b" {
		t.Errorf("before: %+v", s)
	}
	if code, text, errs := cli("", "ship", "check", "--config", config); code != 0 || text != "ok    a\nok    b\n" || errs != "" {
		t.Errorf("check: %d, %q, %q", code, text, errs)
	}
	code, printed, errs := cli("", "ship", "--once", "--config", config)
	if code != 0 || errs != "" {
		t.Fatalf("%d, %q", code, errs)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != printed || strings.Count(printed, `"kind":"oom"`) != 2 || strings.Count(printed, `"kind":"ledger"`) != 4 || strings.Count(printed, `"kind":"head"`) != 2 {
		t.Errorf("%s\n%s", data, printed)
	}
	if s := status(); !s[0].Checkpoint || s[0].Streams != 2 || s[0].Behind != 0 || s[0].Backlog != 0 || s[0].Lag != 0 {
		t.Errorf("after: %+v", s)
	}
	if _, text, _ := cli("", "ship", "status", "--config", config); !strings.HasPrefix(text, "SINK") || !strings.Contains(text, "stdout") {
		t.Errorf("%s", text)
	}
	if code, printed, errs := cli("", "ship", "--once", "--config", config); code != 0 || printed != "" || errs != "" {
		t.Errorf("again: %d, %q, %q", code, printed, errs)
	}
}

func TestShipProblems(t *testing.T) {
	root, _ := signedStreams(t)
	for name, tt := range map[string]struct {
		args []string
		code int
		err  string
	}{
		"no configuration": {[]string{"--config", filepath.Join(root, "none")}, 1, "say in it where"},
		"a mistake in it":  {[]string{"--config", shipConfig(t, root, "sink = 1")}, 1, "did you mean sinks?"},
		"an argument":      {[]string{"x"}, 2, "unknown command"},
		"a flag":           {[]string{"--x"}, 2, "unknown flag"},
		"nobody there": {[]string{"check", "--config", shipConfig(t, root,
			"[[sinks]]\nname = \"a\"\ntype = \"otlp\"\notlp.endpoint = \"http://127.0.0.1:1\"\n[[sinks]]\nname = \"b\"\ntype = \"stdout\"")}, 1, ""},
		"a bad form": {[]string{"status", "-o", "yaml"}, 2, "yaml"},
	} {
		code, out, errs := cli("", append([]string{"ship"}, tt.args...)...)
		if code != tt.code || !strings.Contains(errs, tt.err) || tt.err == "" && !(strings.Contains(out, "FAIL  a: ") && strings.Contains(out, "ok    b")) {
			t.Errorf("%s: %d, %q, %q", name, code, out, errs)
		}
	}
}
