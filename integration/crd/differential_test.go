// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// documents returns the documents of the corpus by where they are: package profile's test data and what the reference shows.
func documents(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	split := func(name string, data []byte) {
		for i, doc := range regexp.MustCompile(`(?m)^---\n`).Split(string(data), -1) {
			if len(bytes.TrimSpace([]byte(doc))) > 0 {
				out[fmt.Sprintf("%s[%d]", filepath.Base(name), i)] = []byte(doc)
			}
		}
	}
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob("../../profile/" + pattern)
		if len(files) == 0 {
			t.Fatalf("nothing matches %s", pattern)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			split(file, data)
		}
	}
	for _, file := range []string{"profiles.md", "node-guide.md", "../README.md"} {
		data, err := os.ReadFile("../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range regexp.MustCompile("(?s)```yaml\n(apiVersion: metsuke.dev.*?)```").FindAllSubmatch(data, -1) {
			split(fmt.Sprintf("%s block %d", file, i), block[1])
		}
	}
	return out
}

// The API server and a node say the same of every document.
func TestBothSidesAgree(t *testing.T) {
	s := servers(t)
	used := map[string]bool{}
	check := func(name string, text []byte) {
		v := judge(t, s, text)
		if problem := v.agree(used); problem != "" {
			t.Errorf("%s: %s\n%.600s", name, problem, text)
		}
	}
	for name, text := range documents(t) {
		check(name, text)
	}
	for table, texts := range map[string][]string{"late": late, "early": early, "read": read} {
		for i, text := range texts {
			check(fmt.Sprintf("%s[%d]", table, i), []byte(text))
		}
	}
	for _, list := range [][]exception{nodeOnly, serverOnly, fileOnly} {
		for _, e := range list {
			if !used[e.why] {
				t.Errorf("nothing needs the exception %q", e.why)
			}
		}
	}
}
