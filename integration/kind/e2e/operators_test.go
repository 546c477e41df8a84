// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/integration/kind"
	"metsuke.dev/metsuke/integration/stand"
)

const (
	repository = "../../.."
	guide      = repository + "/docs/operators.md"
	// image is the name that the manifests have.
	image = "metsuke:devel"
	// next is that of the same code with another version: its tag.
	next = "metsuke:next"
)

// buildNext builds the image next.
func buildNext(ctx context.Context, t *testing.T) {
	t.Helper()
	binaries := t.TempDir()
	if out, err := exec.CommandContext(ctx, "make", "-C", repository, "build", "BIN="+binaries, "VERSION=next").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := docker.BuildImage(ctx, repository+"/deploy/Dockerfile", next, binaries); err != nil {
		t.Fatal(err)
	}
}

// step is one command of a guide, and what it shows below it.
type step struct {
	line    int
	command string
	shown   []string
	section string // the heading above it
}

// followed are the commands of a guide: the lines after "$ " in its blocks of kind console, but for blocks after "<!-- not followed".
func followed(text string) (steps []step) {
	inside, skip, section := false, false, ""
	for i, line := range strings.Split(text, "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "<!-- not followed"):
			skip = true
		case strings.HasPrefix(line, "#") && !inside:
			section = strings.TrimLeft(line, "# ")
		case strings.HasPrefix(line, "```"):
			if inside {
				skip = false
			}
			inside = !inside && line == "```console"
		case !inside || skip:
		case isCommand:
			steps = append(steps, step{line: i + 1, command: command, section: section})
		case len(steps) > 0:
			last := &steps[len(steps)-1]
			last.shown = append(last.shown, line)
		}
	}
	return steps
}

// fault says how what a command printed differs from what the guide shows: each line has to be in it, with anything for "…". A
// command that is shown to be denied has to fail, and others must not.
func (s step) fault(output string, err error) error {
	denied := strings.Contains(strings.Join(s.shown, "\n"), "denied request")
	if denied != (err != nil) {
		return fmt.Errorf("%s:%d: %q: %w\n%s", guide, s.line, s.command, err, output)
	}
	for _, want := range s.shown {
		if !shows(output, want) {
			return fmt.Errorf("%s:%d: %q does not show %q, but\n%s", guide, s.line, s.command, want, output)
		}
	}
	return nil
}

func shows(output, want string) bool {
lines:
	for line := range strings.SplitSeq(output, "\n") {
		for part := range strings.SplitSeq(want, "…") {
			_, rest, found := strings.Cut(line, strings.TrimSpace(part))
			if !found {
				continue lines
			}
			line = rest
		}
		return true
	}
	return false
}

func TestFollowed(t *testing.T) {
	got := followed("$ not this\n```sh\n$ nor this\n```\n```console\n$ one\na … c\n$ two\n```\n<!-- not followed: x -->\n```console\n$ three\n```\n" +
		"### Later\n```console\n$ four\n# no heading\n```\n")
	want := []step{{6, "one", []string{"a … c"}, ""}, {8, "two", nil, ""}, {16, "four", []string{"# no heading"}, "Later"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
		t.Error(diff)
	}
	failed := context.Canceled
	for name, c := range map[string]struct {
		shown  string
		output string
		err    error
		good   bool
	}{
		"as shown":        {"a … c", "x\na b c\n", nil, true},
		"nothing shown":   {"", "anything", nil, true},
		"not in one line": {"a … c", "a\nc\n", nil, false},
		"in wrong order":  {"a … c", "c a\n", nil, false},
		"it fails":        {"a", "a", failed, false},
		"it is denied":    {"… denied request: x", "e: denied request: x", failed, true},
		"it is not":       {"… denied request: x", "e: denied request: x", nil, false},
	} {
		if err := (step{1, "command", strings.Split(c.shown, "\n"), ""}).fault(c.output, c.err); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// follow does what a guide says.
func follow(ctx context.Context, t *testing.T, c *kind.Cluster, steps []step) {
	t.Helper()
	for _, s := range steps {
		begun := time.Now()
		output, err := c.Shell(ctx, repository, s.command)
		t.Logf("%.1f s: %s\n%s", time.Since(begun).Seconds(), s.command, output)
		if err := s.fault(output, err); err != nil {
			out, _ := c.Shell(ctx, repository, "kubectl get pods -A; kubectl -n metsuke-system describe pods | tail -40; kubectl get agentnodes,agentprofiles -o yaml")
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// forGuide makes a cluster of one node, and what the guide compiles. It returns the node's files too.
func forGuide(ctx context.Context, t *testing.T, name string) (c *kind.Cluster, files string) {
	t.Helper()
	if err := docker.BuildImage(ctx, repository+"/deploy/Dockerfile", image, stand.Metsuke("")); err != nil {
		t.Fatal(err)
	}
	buildNext(ctx, t)
	c, err := docker.Create(ctx, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if files, err = c.Nodes[0].Script(ctx, filesScript); err != nil {
		t.Fatal(err)
	}
	return c, files
}

// isBare checks that the node's files are as they were, and that nothing of ours is in the cluster.
func isBare(ctx context.Context, t *testing.T, c *kind.Cluster, files string) {
	t.Helper()
	after, err := c.Nodes[0].Script(ctx, filesScript)
	if diff := cmp.Diff(files, after); err != nil || diff != "" {
		t.Errorf("the node's files (-before +after): %v\n%s", err, diff)
	}
	left, err := c.Shell(ctx, repository, "kubectl get all,crd,clusterroles,clusterrolebindings,validatingadmissionpolicies,runtimeclasses -A -o name | grep metsuke || true; "+
		"kubectl get nodes --show-labels | grep metsuke || true")
	if err != nil || left != "" {
		t.Errorf("left in the cluster: %v\n%s", err, left)
	}
}

// commands are those of the operators' guide: the ones for Helm, or all others.
func commands(t *testing.T, forHelm bool) (steps []step) {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range followed(string(text)) {
		if strings.HasSuffix(s.section, " with Helm") == forHelm {
			steps = append(steps, s)
		}
	}
	return steps
}

// The operators' guide, word by word on a new cluster. At its end the node's files are as they were, and nothing of ours is in the cluster.
func TestOperatorsGuide(t *testing.T) {
	steps := commands(t, false)
	if len(steps) < 20 {
		t.Fatalf("the guide has %d commands", len(steps))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*setUpLimit)
	defer cancel()
	c, files := forGuide(ctx, t, "kind") // the name that kind load takes by itself
	follow(ctx, t, c, steps)
	isBare(ctx, t, c, files)
}
