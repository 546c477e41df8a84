// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit/stream"
)

func sample() *Checkpoint {
	return &Checkpoint{Sink: "lake", Marks: map[string]Mark{
		"ns_pod_uid/main": {Stream: "ns_pod_uid/main", ID: strings.Repeat("a", 32), Seq: 1841, Chain: strings.Repeat("b", 64), At: stream.Position{Segment: 2, Offset: 77}, Head: 9},
		"ns_old_uid/<x>":  {Stream: "ns_old_uid/<x>", Seq: 3, At: stream.Position{Segment: 1, Offset: 1 << 40}},
	}}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if names, err := Sinks(dir); names != nil || err != nil {
		t.Errorf("before: %v, %v", names, err)
	}
	if _, err := Load(dir, "lake"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // the second one replaces the first
		if err := sample().Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(dir, "lake")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Error(diff)
	}
	if names, err := Sinks(dir); len(names) != 1 || names[0] != "lake" || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	info, err := os.Stat(path(dir, "lake"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestConfirmed(t *testing.T) {
	c := sample()
	id := strings.Repeat("a", 32)
	for _, tt := range []struct {
		dir, id string
		want    uint64
	}{
		{"ns_pod_uid/main", id, 1841},
		{"ns_pod_uid/main", "", 0},
		{"ns_pod_uid/main", strings.Repeat("c", 32), 0},
		{"ns_pod_uid/other", id, 0},
		{"ns_old_uid/<x>", "", 3},
	} {
		if got := c.Confirmed(tt.dir, tt.id); got != tt.want {
			t.Errorf("%s, %q: %d", tt.dir, tt.id, got)
		}
	}
}

// TestSaveFails: the old checkpoint is there, and nothing beside it.
func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	if err := sample().Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path(dir, "lake")+temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sample().Save(dir); err == nil {
		t.Error("no error")
	}
	if _, err := Load(dir, "lake"); err != nil {
		t.Error(err)
	}
}

// TestEveryLength: a file that was cut anywhere, or goes on, is refused.
func TestEveryLength(t *testing.T) {
	var whole bytes.Buffer
	if err := sample().write(&whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		if _, err := read(bytes.NewReader(whole.Bytes()[:n]), "lake"); err == nil {
			t.Fatalf("%d of %d bytes pass", n, whole.Len())
		}
	}
	if _, err := read(strings.NewReader(whole.String()+"\n"), "lake"); err == nil {
		t.Error("passes with another line")
	}
}

func TestNotACheckpoint(t *testing.T) {
	const head, end = `{"v":1,"sink":"lake"}` + "\n", `{"streams":1}` + "\n"
	const mark = `{"stream":"a/b","id":"","seq":1,"chain":"","at":{"segment":1,"offset":0}}` + "\n"
	for name, text := range map[string]string{
		"version":       `{"v":2,"sink":"lake"}` + "\n" + `{"streams":0}` + "\n",
		"sink":          `{"v":1,"sink":"sea"}` + "\n" + `{"streams":0}` + "\n",
		"twice":         head + mark + mark + `{"streams":2}` + "\n",
		"no stream":     head + strings.Replace(mark, "a/b", "", 1) + end,
		"negative":      head + strings.Replace(mark, `"offset":0`, `"offset":-1`, 1) + end,
		"unknown field": head + strings.Replace(mark, `"id"`, `"x":1,"id"`, 1) + end,
		"two values":    head + strings.TrimSuffix(mark, "\n") + mark + end,
		"too long":      head + strings.Replace(mark, "a/b", strings.Repeat("a", maxLine), 1) + end,
	} {
		if _, err := read(strings.NewReader(text), "lake"); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	if _, err := read(strings.NewReader(head+mark+end), "lake"); err != nil {
		t.Error(err)
	}
}

// TestLinks: a link is not followed, and no name leaves the directory.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	if err := sample().Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("lake.checkpoint", path(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "../lake", "", "Lake", "-"} {
		if _, err := Load(dir, name); err == nil {
			t.Errorf("%q passes", name)
		}
	}
	if names, err := Sinks(dir); len(names) != 1 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
}

func FuzzRead(f *testing.F) {
	var whole bytes.Buffer
	if err := sample().write(&whole); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := read(bytes.NewReader(in), "lake")
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := c.write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := read(&out, "lake")
		if err != nil || !cmp.Equal(c, again) {
			t.Fatalf("read %+v, then %+v, %v", c, again, err)
		}
	})
}
