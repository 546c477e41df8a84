// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
	"metsuke.dev/metsuke/internal/goldentest"
)

const manual = "../../docs/audit.md"

// TestManual holds the table of codes to the code's; -update writes it.
func TestManual(t *testing.T) {
	var table strings.Builder
	table.WriteString("| code | meaning |\n|---|---|\n")
	for _, term := range verify.Codes() {
		fmt.Fprintf(&table, "| `%s` | %s |\n", term.Name, term.Doc)
	}
	goldentest.Section(t, manual, "codes", table.String())
}

// TestByOtherMeans runs the recipe of the manual, which has nothing of ours.
func TestByOtherMeans(t *testing.T) {
	for _, tool := range []string{"openssl", "xxd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the recipe needs %s: %v", tool, err)
		}
	}
	_, rest, ok := strings.Cut(string(load(t, manual)), "```sh\n")
	recipe, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatalf("%s has no recipe", manual)
	}
	key, _ := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	dir := stream.Dir(root, sampleID)
	store(t, filepath.Join(dir, "node.pem"), key.PEM())
	try := func() error {
		cmd := exec.Command("sh", "-c", recipe)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	if err := try(); err != nil {
		t.Error(err)
	}
	path := filepath.Join(dir, "manifest")
	store(t, path, []byte(strings.Replace(string(load(t, path)), `"end":true`, `"end":false`, 2)))
	if err := try(); err == nil {
		t.Error("a changed line passes")
	}
}
