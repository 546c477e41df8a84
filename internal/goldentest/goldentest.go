// SPDX-License-Identifier: Apache-2.0

// Package goldentest holds files to what code makes: golden files of tests, and sections of the documentation. Tests that use it have the
// flag -update, which rewrites them.
package goldentest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files and generated sections of the documentation")

// Equal compares a golden file with what it is to be. -update makes it first, with its directory.
func Equal[T string | []byte](t testing.TB, file string, got T) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, file, string(got))
	}
	compare(t, file, read(t, file), string(got))
}

// Section compares what a file has between <!-- NAME:begin --> and <!-- NAME:end --> with what it is to be there. -update writes that.
func Section(t testing.TB, file, name, content string) {
	t.Helper()
	text := read(t, file)
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	before, rest, begins := strings.Cut(text, begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatalf("%s has no section %s", file, name)
	}
	made := before + begin + content + end + after
	if *update {
		write(t, file, made)
		return
	}
	compare(t, file, text, made)
}

func compare(t testing.TB, file, want, got string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got, -update rewrites):\n%s", file, diff)
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // it is no secret
		t.Fatal(err)
	}
}
