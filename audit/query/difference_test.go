// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
)

// random makes a stream's events of a seed. What a segment has in common with no other comes by the segment, so that there is
// something to skip.
type random struct {
	*rand.Rand
	n int
}

func (r *random) pick(words ...string) string { return words[r.IntN(len(words))] }

func (r *random) event() audit.Event {
	r.n++
	age := r.n / 60
	e := audit.Event{Time: epoch.Add(time.Duration(r.n)*time.Second - time.Duration(r.IntN(90))*time.Second), Kind: audit.KindSyscall}
	if r.IntN(4) == 0 {
		e.Exec = fmt.Sprintf("%02d%s", age, r.pick("abcdefgh", "abcdefgx", "e"))
	}
	switch r.IntN(40) {
	case 0:
		e.Kind, e.Exit = audit.KindExit, &audit.Exit{}
		return e
	case 1:
		e.Kind, e.ExecStart = audit.KindExec, &audit.ExecStart{PID: uint32(r.IntN(30))}
		return e
	case 2:
		e.Kind, e.Receipt = audit.KindStart, &audit.Receipt{PID: 1}
		return e
	}
	c := &audit.Syscall{
		PID: uint32(1 + r.IntN(30)), PPID: uint32(r.IntN(30)), Syscall: r.pick("openat", "connect", "unlink", fmt.Sprintf("call%d", age)),
		Class: r.pick("net", "file-write", "", fmt.Sprintf("class%d", age%3)), Verdict: audit.VerdictAllowed,
	}
	if r.IntN(20) == 0 {
		c.Verdict = audit.VerdictDenied
		c.Count, c.Until = 2, e.Time.Add(time.Duration(r.IntN(300))*time.Second)
	}
	evidence := audit.Evidence(r.pick("peeked", "peeked", "register"))
	c.Args = append(c.Args,
		audit.Arg{Name: r.pick("path", "to", "flags"), Evidence: evidence, Value: r.pick("/etc/shadow", "/etc/./passwd", "relative/x", fmt.Sprintf("/data/%d/a/b", age), "/\x1b\xff\\")},
		audit.Arg{Name: "addr", Evidence: evidence, Value: r.pick("10.0.0.7:443", fmt.Sprintf("10.%d.0.1:80", age), fmt.Sprintf("[fd00:%d::1]:53", age), "unix:/run/x")})
	e.Syscall = c
	return e
}

func (r *random) filter(t *testing.T) (f Filter) {
	some := func(n int) bool { return r.IntN(n) == 0 }
	age := r.IntN(12)
	if some(3) {
		f.Since = epoch.Add(time.Duration(r.IntN(720)) * time.Second)
	}
	if some(3) {
		f.Until = epoch.Add(time.Duration(r.IntN(720)) * time.Second)
	}
	if some(6) {
		f.Kinds = []audit.Kind{audit.Kind(r.pick("exit", "start", "syscall", "oom"))}
	}
	if some(4) {
		f.Classes = []string{r.pick("net", "class1", "none"), fmt.Sprintf("class%d", age)}
	}
	if some(4) {
		f.Verdicts = []audit.Verdict{audit.VerdictDenied}
	}
	if some(4) {
		f.Syscalls = []string{r.pick("openat", fmt.Sprintf("call%d", age), "none")}
	}
	if some(4) {
		f.Execs = []string{r.pick(NoExec, fmt.Sprintf("%02d", age), fmt.Sprintf("%02dabcdefgh", age), "xxxxxxxxxxx")}
	}
	if some(5) {
		f.Profiles = []string{r.pick("coder", "browser")}
	}
	if some(3) {
		p, err := ParsePath(r.pick("/etc/shadow", "/etc/*", fmt.Sprintf("/data/%d/**", age), "**/b", "relative/*", "/\x1b**", "/etc/passwd"))
		if err != nil {
			t.Fatal(err)
		}
		f.Paths = []Path{p}
	}
	if some(3) {
		a, err := ParseAddress(r.pick("10.0.0.0/24", fmt.Sprintf("10.%d.0.0/16", age), ":53", fmt.Sprintf("[fd00:%d::/32]:53", age), "unix:/run/*", "10.0.0.0/9:80"))
		if err != nil {
			t.Fatal(err)
		}
		f.Addresses = []Address{a}
	}
	if some(5) {
		f.Process = Process{PID: uint32(1 + r.IntN(30))}
	}
	return f
}

// reference reads as plainly as can be: each line is parsed by encoding/json, each record compared.
func reference(t *testing.T, dir string, f *Filter) (lines []string) {
	t.Helper()
	in, err := segment.OpenReader(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	all := descent{root: f.Process}
	for {
		line, err := in.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if own := all.has(r); (own || f.Process.PID == 0) && f.Match(r) {
			lines = append(lines, string(line))
		}
	}
}

// TestDifference: with an index and without, kept and borrowed, all and the last few, a query finds what the reference finds.
func TestDifference(t *testing.T) {
	minIndexed = 1
	defer func() { minIndexed = index.MinBytes }()
	for seed := range uint64(4) {
		root, who := t.TempDir(), id("a", "p", "x")
		who.Profile = "coder"
		r := &random{rand.New(rand.NewPCG(seed, 1)), 0}
		var events []audit.Event
		for range 720 {
			events = append(events, r.event())
		}
		write(t, root, who, stream.Options{SegmentBytes: 24 << 10}, events...)
		dir := stream.Dir(root, who)
		indexes := filepath.Join(t.TempDir(), "index")
		cache, err := index.Open(indexes)
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			f := r.filter(t)
			want := reference(t, dir, &f)
			for what, o := range map[string]Options{
				"plain": {Last: All}, "borrowed": {Last: All, Borrow: true}, "indexed": {Last: All, Index: cache},
				"indexed and borrowed": {Last: All, Index: cache, Borrow: true}, "the last, indexed": {Last: 7, Index: cache}, "the last": {Last: 7},
			} {
				var got []string
				o.Problem = func(err error) { t.Error(err) }
				if err := Read(context.Background(), root, &f, o, func(e Entry) error {
					if e.Seq%16 == 0 { // FuzzDecoder says the same of all
						if r, err := record.Parse(e.Line); err != nil || cmp.Diff(r, e.Record) != "" {
							t.Errorf("%v: the record of %q is %+v", err, e.Line, e.Record)
						}
					}
					got = append(got, string(e.Line))
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				want := want
				if o.Last >= 0 {
					want = want[max(0, len(want)-o.Last):]
				}
				if !slices.Equal(got, want) {
					t.Errorf("seed %d, %s, %+v: %d records, want %d", seed, what, f, len(got), len(want))
				}
			}
		}
		if files, err := os.ReadDir(indexes); err != nil || len(files) < 5 {
			t.Errorf("%d segments are indexed: %v", len(files), err)
		}
	}
}

// TestIndexIsUsed: what an index excludes is not read, and an index of what a segment was is of no use.
func TestIndexIsUsed(t *testing.T) {
	minIndexed = 1
	defer func() { minIndexed = index.MinBytes }()
	root := t.TempDir()
	write(t, root, id("a", "p", "x"), stream.Options{SegmentBytes: 1}, call(1, "net", audit.VerdictAllowed), call(2, "exec", audit.VerdictAllowed), exit(3))
	cache, err := index.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Last: All, Index: cache}
	if got, problems := read(t, root, Filter{}, o); got != "p/x:1 p/x:2 p/x:3" || problems != nil {
		t.Fatal(got, problems)
	}
	segments, err := stream.Segments(stream.Dir(root, id("a", "p", "x")))
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	o.Missing = func(_ stream.Stream, after, next uint64) { missing = append(missing, fmt.Sprint(after, next)) }
	if got, problems := read(t, root, Filter{Classes: []string{"exec"}}, o); got != "p/x:2" || problems != nil || missing != nil {
		t.Error(got, problems, missing)
	}
	// Damage shows what is read.
	damaged := func(number int, text string) {
		t.Helper()
		if err := os.WriteFile(segments[number-1].Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep, err := os.ReadFile(segments[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	damaged(1, "no record\n")
	for range 2 {
		if got, problems := read(t, root, Filter{Classes: []string{"exec"}}, o); got != "p/x:2" || len(problems) != 1 {
			t.Error("a segment that was changed, and one that is damaged, is read each time:", got, problems)
		}
	}
	damaged(1, strings.Replace(string(keep), `"class":"net"`, `"class":"exec"`, 1))
	if got, _ := read(t, root, Filter{Classes: []string{"exec"}}, o); got != "p/x:1 p/x:2" {
		t.Error("what was changed is not found:", got)
	}
	if got, _ := read(t, root, Filter{}, o); got != "p/x:1 p/x:2 p/x:3" || missing != nil {
		t.Error(got, missing)
	}
	if err := os.Remove(segments[1].Path); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, root, Filter{}, o); got != "p/x:1 p/x:3" || !slices.Equal(missing, []string{"1 3"}) {
		t.Errorf("read %s, missing %v", got, missing)
	}
}
