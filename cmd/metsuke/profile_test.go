// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/internal/goldentest"
)

// cli runs a command line and returns its exit code and what it printed.
func cli(in string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(args, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	goldentest.Equal(t, filepath.Join("testdata", file), got)
}

// noConfig is a configuration that says nothing, so that the machine's own does not matter.
func noConfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("version = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config=" + file
}

const (
	good = "--profiles=testdata/profile/good"
	bad  = "--profiles=testdata/profile/bad"
)

func TestProfileGolden(t *testing.T) {
	for _, c := range []struct {
		file string
		code int
		args []string
	}{
		{"lint-good.txt", 0, []string{"lint", "testdata/profile/good"}},
		{"lint-bad.txt", 1, []string{"lint", "testdata/profile/bad/a.yaml", "testdata/profile/bad/b.yaml"}},
		{"lint-bad.json", 1, []string{"lint", "-o", "json", "testdata/profile/bad"}},
		{"lint-warning.txt", 0, []string{"lint", "testdata/profile/warning.yaml"}},
		{"lint-node.txt", 1, []string{"lint", bad}},
		{"list.txt", 0, []string{"list", good}},
		{"list.json", 0, []string{"list", good, "-o", "json"}},
		{"show-coder.txt", 0, []string{"show", good, "coder"}},
		{"show-browser.txt", 0, []string{"show", good, "browser"}},
		{"show-browser.json", 0, []string{"show", good, "browser", "-o", "json"}},
		{"show-calculator.yaml", 0, []string{"show", good, "calculator", "-o", "yaml"}},
		{"show-passthrough.txt", 0, []string{"show", good, "passthrough"}},
		{"render-calculator.json", 0, []string{"render", good, "calculator", "--arch", "amd64", "--format", "oci"}},
		{"render-coder-arm64.json", 0, []string{"render", good, "coder", "--arch", "arm64", "--format", "oci"}},
		{"render-coder-v1.json", 0, []string{"render", good, "coder", "--arch", "amd64", "--format", "oci", "--cgroup", "v1"}},
		{"vocabulary-operators.txt", 0, []string{"vocabulary", "operators", "values"}},
		{"vocabulary-architectures.json", 0, []string{"vocabulary", "architectures", "-o", "json"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			code, out, errs := cli("", append([]string{"profile", noConfig(t)}, c.args...)...)
			if code != c.code || errs != "" {
				t.Errorf("exit code %d, want %d; stderr: %s", code, c.code, errs)
			}
			golden(t, "profile/"+c.file, out)
			switch filepath.Ext(c.file) {
			case ".json":
				if !json.Valid([]byte(out)) {
					t.Error("is not JSON")
				}
			case ".yaml":
				var v map[string]any
				if err := yaml.Unmarshal([]byte(out), &v); err != nil || v["name"] != "calculator" {
					t.Errorf("%v, %v", v, err)
				}
			}
		})
	}
}

// What show prints as YAML and as JSON is the same.
func TestProfileShowForms(t *testing.T) {
	_, j, _ := cli("", "profile", noConfig(t), "show", good, "coder", "-o", "json")
	_, y, _ := cli("", "profile", noConfig(t), "show", good, "coder", "-o", "yaml")
	var a, b any
	if err := json.Unmarshal([]byte(j), &a); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(y), &b); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
}

// The filter itself is the compiler's; here only that it is shown.
func TestProfileRenderFilter(t *testing.T) {
	_, oci, _ := cli("", "profile", noConfig(t), "render", good, "coder", "--format", "oci")
	_, bpf, _ := cli("", "profile", noConfig(t), "render", good, "coder", "--format", "bpf")
	code, all, errs := cli("", "profile", noConfig(t), "render", good, "coder")
	if code != 0 || !strings.Contains(all, oci) || !strings.HasSuffix(all, bpf) {
		t.Errorf("%d %s: all is not the sum of its parts", code, errs)
	}
	if !regexp.MustCompile(`^# \d+ instructions, sha256 [0-9a-f]{64}\n.*ld .*arch\n`).MatchString(bpf) || !strings.Contains(bpf, "ret  NOTIFY\n") {
		t.Errorf("no filter: %.300s", bpf)
	}
}

func TestProfileFloor(t *testing.T) {
	code, out, errs := cli("", "profile", "--config=testdata/profile/config.toml", "show", good, "coder", "-o", "json")
	var v profileView
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
		t.Fatal(code, errs, err)
	}
	var layers []string
	for _, l := range v.Layers {
		layers = append(layers, l.Name)
	}
	if diff := cmp.Diff([]string{"calculator", "baseline", "coder"}, layers); diff != "" {
		t.Error(diff)
	}
}

func TestProfileLintStandardInput(t *testing.T) {
	code, out, errs := cli("apiVersion: x\n", "profile", "lint", "-")
	if code != 1 || errs != "" || !strings.HasPrefix(out, "(standard input):1:13: apiVersion: ") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
}

func TestCommandLineFaults(t *testing.T) {
	none := t.TempDir() + "/none"
	for _, c := range []struct {
		args []string
		code int
		want string // in what is printed on stderr
	}{
		{[]string{"profil"}, 2, `unknown command "profil" for "metsuke"; did you mean profile?` + "\nSee 'metsuke --help'."},
		{[]string{"profile", "lnt"}, 2, `unknown command "lnt" for "metsuke profile"; did you mean lint or list?`},
		{[]string{"--nonsense"}, 2, "unknown flag: --nonsense"},
		{[]string{"profile", "show"}, 2, "accepts 1 arg(s), received 0\nSee 'metsuke profile show --help'."},
		{[]string{"profile", "show", "coder", "-o", "xml"}, 2, "must be one of text, json, yaml"},
		{[]string{"profile", "render", "coder", "--arch", "mips"}, 2, "must be one of amd64, arm64"},
		{[]string{"profile", "vocabulary", "nonsense"}, 2, `invalid argument "nonsense"`},
		{[]string{"profile", "list", "extra"}, 2, "unknown command"},
		{[]string{"version", "extra"}, 2, "unknown command"},
		{[]string{"man"}, 2, "accepts 1 arg(s)"},

		{[]string{"profile", "show", good, "codr"}, 1, `metsuke: there is no profile "codr"; did you mean coder?`},
		{[]string{"profile", "show", bad, "coder"}, 1, "the profiles have faults:\ntestdata/profile/bad/a.yaml:5:13: spec.extends.baselin: "},
		{[]string{"profile", "list", "--profiles", none}, 1, "no such file or directory"},
		{[]string{"profile", "list", "--config", none}, 1, "configuration: no such configuration file: " + none},
		{[]string{"profile", "lint", none}, 1, "no such file or directory"},
		{[]string{"profile", "render", good, "passthrough"}, 1, "changes nothing"},
	} {
		args := c.args
		if args[0] == "profile" {
			args = append([]string{"profile", noConfig(t)}, args[1:]...)
		}
		code, _, errs := cli("", args...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit code %d, want %d; stderr: %s", c.args, code, c.code, errs)
		}
	}
}

func TestHelpIsNoFault(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"profile"}, {"profile", "lint", "--help"}, {"help", "profile"}} {
		if code, out, errs := cli("", args...); code != 0 || errs != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%q: %d, %s%s", args, code, out, errs)
		}
	}
}

func TestCompletion(t *testing.T) {
	_, out, _ := cli("", "__complete", "profile", noConfig(t), good, "show", "")
	for _, want := range []string{"baseline\tSound for agents", "coder\tWrites and builds software.", "calculator\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, _ := cli("", "completion", shell); code != 0 || !strings.Contains(out, "metsuke") {
			t.Errorf("%s: %d", shell, code)
		}
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := cli("", "version")
	if !regexp.MustCompile(`^metsuke \S+ \(go\S+, linux/\w+\)\n$`).MatchString(out) || code != 0 {
		t.Errorf("%d %q", code, out)
	}
}

func TestManPages(t *testing.T) {
	dir := t.TempDir() + "/man"
	if code, _, errs := cli("", "man", dir); code != 0 {
		t.Fatal(errs)
	}
	for _, name := range []string{"metsuke.1", "metsuke-profile-lint.1", "metsuke-audit.1"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(data, []byte(".TH ")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
