// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 5, time.UTC)

func peeked(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidencePeeked}
}

func call(at time.Time, args ...audit.Arg) *record.Record {
	return &record.Record{Identity: audit.Identity{Profile: "coder"}, Event: audit.Event{
		Time: at, Exec: "0123456789abcdef", Kind: audit.KindSyscall,
		Syscall: &audit.Syscall{Syscall: "openat", Class: "file-write", Verdict: audit.VerdictAllowed, Args: args},
	}}
}

func summary() *Summary {
	s := new(Summary)
	folded := call(noon.Add(time.Minute))
	folded.Event.Syscall.Count, folded.Event.Syscall.Until = 2, noon.Add(time.Hour)
	for _, r := range []*record.Record{
		folded,
		call(noon, peeked("path", "/etc/../srv//data/x/y/z"), peeked("to", "relative/name"), peeked("flags", "/not/a/path")),
		call(noon, peeked("addr", "10.1.2.3:443"), peeked("addr", "[::ffff:10.1.9.9]:53"), peeked("addr", "[fd00:1:2:3::4%5]:80"), peeked("addr", "unix:/run/x")),
		{Event: audit.Event{Time: noon, Kind: audit.KindStart, Receipt: &audit.Receipt{PID: 7}}},
	} {
		s.Add(r)
	}
	return s
}

func TestHas(t *testing.T) {
	s := summary()
	for _, tt := range []struct {
		field Field
		value string
		want  bool
	}{
		{Kind, "syscall", true}, {Kind, "start", true}, {Kind, "oom", false},
		{Class, "file-write", true}, {Class, "net", false}, {Verdict, "allowed", true}, {Verdict, "denied", false},
		{Syscall, "openat", true}, {Syscall, "connect", false}, {Profile, "coder", true}, {Profile, "browser", false},
		{Exec, "01234567", true}, {Exec, "0123456x", false},
		{Path, "/etc/../srv//data/x/y/z", true}, {Path, "/srv/data/x/y/z", true}, {Path, "relative/name", true}, {Path, "/srv/data", false},
		{Path, "/not/a/path", false}, // its name is not one of a path's
		{Directory, "/srv", true}, {Directory, "/srv/data", true}, {Directory, "/srv/data/x", true}, {Directory, "/srv/data/x/y", false},
		{Directory, "relative", true}, {Directory, "/usr", false},
		{Address, "10.1.2.3", true}, {Address, "10.1.9.9", true}, {Address, "fd00:1:2:3::4", true}, {Address, "10.1.2.4", false},
		{Family, "unix", true}, {Family, "vsock", false},
	} {
		if got := s.Has(tt.field, tt.value); got != tt.want {
			t.Errorf("field %d, %q: %v, want %v", tt.field, tt.value, got, tt.want)
		}
	}
	for network, want := range map[string]bool{
		"10.0.0.0/8": true, "10.1.0.0/15": true, "10.1.2.0/24": true, "10.1.2.2/31": true, "10.1.3.0/24": false, "10.0.0.0/7": true,
		"11.0.0.0/8": false, "10.1.2.3/32": true, "fd00:1::/32": true, "fd00:1:2:3::/64": true, "fd00:1:2:4::/64": false, "::/0": true,
	} {
		if got := s.HasNetwork(netip.MustParsePrefix(network)); got != want {
			t.Errorf("network %s: %v, want %v", network, got, want)
		}
	}
	for port, want := range map[uint16]bool{443: true, 53: true, 80: true, 22: false} {
		if got := s.HasPort(port); got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
}

func TestHasTime(t *testing.T) {
	s := summary()
	var none time.Time
	for _, tt := range []struct {
		since, until time.Time
		want         bool
	}{
		{none, none, true}, {noon, none, true}, {noon.Add(time.Hour), none, true}, {noon.Add(time.Hour + 3*time.Second), none, false},
		{none, noon, true}, {none, noon.Add(-2 * time.Second), false}, {none, noon.Add(time.Second), true},
	} {
		if got := s.HasTime(tt.since, tt.until); got != tt.want {
			t.Errorf("from %v until %v: %v", tt.since, tt.until, got)
		}
	}
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "index")
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join(t.TempDir(), "00000001.ndjson")
	write := func(text string) Key {
		t.Helper()
		if err := os.WriteFile(segment, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		key, size, err := KeyOf(segment)
		if err != nil || size != int64(len(text)) {
			t.Fatal(size, err)
		}
		return key
	}
	key := write("one\n")
	if c.Get(key) != nil {
		t.Error("an index of what nobody has read")
	}
	s := summary()
	if _, err := os.Stat(dir); err == nil {
		t.Error("a directory is made for nothing")
	}
	c.Put(key, s)
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	if got := c.Get(key); got == nil || *got != *s {
		t.Error("the index is not what was put there")
	}
	if other := write("two two\n"); other == key || c.Get(other) != nil {
		t.Error("a segment that was changed has the index of what it was")
	}
	if _, _, err := KeyOf(dir); err == nil {
		t.Error("a directory has a key")
	}

	data, err := os.ReadFile(c.path(key))
	if err != nil {
		t.Fatal(err)
	}
	var foreign Key
	for what, data := range map[string][]byte{
		"empty": {}, "cut": data[:len(data)-1], "longer": append(bytes.Clone(data), 0), "zeros": make([]byte, len(data)),
		"a bit less": append(append(bytes.Clone(data[:300]), data[300]^1), data[301:]...), "another's": s.encode(foreign),
	} {
		if err := os.WriteFile(c.path(key), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.Get(key) != nil {
			t.Errorf("%s: taken for an index", what)
		}
	}
}

func TestCacheIsOurs(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory that everybody writes in")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link); err == nil {
		t.Error("a link")
	}
	late := filepath.Join(t.TempDir(), "late")
	c, err := Open(late)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, late); err != nil { // before there was anything to keep
		t.Fatal(err)
	}
	if c.Put(Key{1}, summary()); c.Err() == nil || c.Get(Key{1}) != nil {
		t.Error("an index is kept in somebody else's directory")
	}
}

// The oldest indexes go, and nothing else that is there.
func TestPrune(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		path := c.path(Key{byte(i)})
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	note := filepath.Join(c.dir, "note.txt")
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(note, time.Time{}, noon.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := c.prune(20, 4); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(c.dir); len(files) != 11 {
		t.Errorf("%d files are left of as many as may be", len(files))
	}
	if err := c.prune(8, 4); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(c.dir)
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files are left, %v", len(files), err)
	}
	for _, i := range []int{6, 7, 8, 9} {
		if _, err := os.Stat(c.path(Key{byte(i)})); err != nil {
			t.Error(err)
		}
	}
}

// FuzzDecode: no file upsets the decoder, and what it takes for an index, it writes again as it was.
func FuzzDecode(f *testing.F) {
	f.Add(summary().encode(Key{1}))
	f.Add([]byte(fmt.Sprintf("%s%0*d", magic, encodedBytes-len(magic), 0)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Summary
		if s.decode(data, Key{1}) == nil && !bytes.Equal(s.encode(Key{1}), data) {
			t.Error("not what was read")
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	r := call(noon, peeked("path", "/work/repository/node_modules/package/lib/index.js"), peeked("addr", "10.1.2.3:443"))
	var s Summary
	b.ReportAllocs()
	for b.Loop() {
		s.Add(r)
	}
}
