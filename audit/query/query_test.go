// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }

func id(namespace, pod, container string) audit.Identity {
	return audit.Identity{Namespace: namespace, Pod: pod, PodUID: "u-" + pod, Container: container}
}

func call(minutes int, class string, verdict audit.Verdict) audit.Event {
	return audit.Event{Time: at(minutes), Kind: audit.KindSyscall, Syscall: &audit.Syscall{Class: class, Verdict: verdict}}
}

func exit(minutes int) audit.Event {
	return audit.Event{Time: at(minutes), Kind: audit.KindExit, Exit: &audit.Exit{}}
}

func write(t testing.TB, root string, id audit.Identity, o stream.Options, events ...audit.Event) *stream.Writer {
	t.Helper()
	w, err := stream.OpenWriter(stream.Dir(root, id), id, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	add(t, w, events...)
	return w
}

func add(t testing.TB, w *stream.Writer, events ...audit.Event) {
	t.Helper()
	for i := range events {
		if err := w.Append(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// label names an entry: pod, container, number.
func label(e Entry) string {
	return fmt.Sprintf("%s/%s:%d", e.Identity.Pod, e.Identity.Container, e.Seq)
}

func read(t testing.TB, root string, f Filter, o Options) (labels string, problems []string) {
	t.Helper()
	var got []string
	o.Problem = func(err error) { problems = append(problems, err.Error()) }
	err := Read(context.Background(), root, &f, o, func(e Entry) error {
		if r, err := record.ParseStrict(e.Line); err != nil || r.Seq != e.Seq {
			t.Errorf("entry %s has line %q", label(e), e.Line)
		}
		got = append(got, label(e))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " "), problems
}

// fill writes two pods with three containers.
func fill(t testing.TB) (root string) {
	root = t.TempDir()
	folded := call(4, "net", audit.VerdictDenied)
	folded.Syscall.Count, folded.Syscall.Until = 9, at(20)
	write(t, root, id("a", "p", "x"), stream.Options{SegmentBytes: 1}, call(1, "exec", audit.VerdictAllowed), folded, exit(30))
	write(t, root, id("a", "p", "y"), stream.Options{}, call(2, "net", audit.VerdictAllowed), call(25, "", audit.VerdictKilled))
	write(t, root, id("b", "q_", "x"), stream.Options{}, call(3, "exec", audit.VerdictDenied))
	return root
}

func TestRead(t *testing.T) {
	root := fill(t)
	const all = "p/x:1 p/y:1 q_/x:1 p/x:2 p/y:2 p/x:3"
	for _, tt := range []struct {
		name string
		f    Filter
		last int
		want string
	}{
		{"all, by time", Filter{}, All, all},
		{"pod", Filter{Pods: []string{"q_"}}, All, "q_/x:1"},
		{"pod with namespace", Filter{Pods: []string{"a/p"}}, All, "p/x:1 p/y:1 p/x:2 p/y:2 p/x:3"},
		{"pod with another namespace", Filter{Pods: []string{"b/p"}}, All, ""},
		{"pods", Filter{Pods: []string{"q_", "b/p", "none"}}, All, "q_/x:1"},
		{"namespace", Filter{Namespaces: []string{"b", "c"}}, All, "q_/x:1"},
		{"container", Filter{Containers: []string{"y"}}, All, "p/y:1 p/y:2"},
		{"kind", Filter{Kinds: []audit.Kind{audit.KindExit}}, All, "p/x:3"},
		{"class", Filter{Classes: []string{"exec"}}, All, "p/x:1 q_/x:1"},
		{"verdicts", Filter{Verdicts: []audit.Verdict{audit.VerdictDenied, audit.VerdictKilled}}, All, "q_/x:1 p/x:2 p/y:2"},
		{"class and verdict", Filter{Classes: []string{"net"}, Verdicts: []audit.Verdict{audit.VerdictDenied}}, All, "p/x:2"},
		{"since", Filter{Since: at(20)}, All, "p/x:2 p/y:2 p/x:3"}, // the folded one reaches that far
		{"just after", Filter{Since: at(20).Add(1)}, All, "p/y:2 p/x:3"},
		{"until", Filter{Until: at(3)}, All, "p/x:1 p/y:1"},
		{"between", Filter{Since: at(2), Until: at(4)}, All, "p/y:1 q_/x:1"},
		{"after all", Filter{Since: time.Now().Add(time.Hour)}, All, ""},
		{"last", Filter{}, 2, "p/y:2 p/x:3"},
		{"last of a container", Filter{Containers: []string{"x"}}, 3, "q_/x:1 p/x:2 p/x:3"},
		{"last of one verdict", Filter{Verdicts: []audit.Verdict{audit.VerdictAllowed}}, 1, "p/y:1"},
		{"last, more than there are", Filter{}, 100, all},
		{"none", Filter{}, 0, ""},
	} {
		if got, problems := read(t, root, tt.f, Options{Last: tt.last}); got != tt.want || problems != nil {
			t.Errorf("%s: read %s, problems %v; want %s", tt.name, got, problems, tt.want)
		}
	}
}

// What is kept of the last records is bounded, and what is left out for that is told.
func TestLastBytes(t *testing.T) {
	root := t.TempDir()
	write(t, root, id("a", "p", "x"), stream.Options{}, exit(1), exit(2), exit(3), exit(4))
	_, size, err := stream.Size(stream.Dir(root, id("a", "p", "x")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		last, bytes int
		want        string
		problems    int
	}{{4, 0, "p/x:1 p/x:2 p/x:3 p/x:4", 0}, {2, int(size), "p/x:3 p/x:4", 0}, {4, int(size) * 5 / 8, "p/x:3 p/x:4", 1}, {4, 1, "", 1}} {
		if got, problems := read(t, root, Filter{}, Options{Last: tt.last, LastBytes: tt.bytes}); got != tt.want || len(problems) != tt.problems {
			t.Errorf("%d, %d: read %s, problems %v", tt.last, tt.bytes, got, problems)
		}
	}
}

func TestReadProblems(t *testing.T) {
	root := fill(t)
	dir := stream.Dir(root, id("b", "q_", "x"))
	file, err := os.OpenFile(dir+"/00000001.ndjson", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("hello\n{}\ntorn"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", dir+"/00000002.ndjson"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/00000003.ndjson", []byte("and\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, problems := read(t, root, Filter{Pods: []string{"q_"}}, Options{Last: All})
	if got != "q_/x:1" || len(problems) != 5 {
		t.Errorf("read %s, problems %q; want one record and five problems", got, problems)
	}
	if err := Read(context.Background(), root+"/none", &Filter{}, Options{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root: %v", err)
	}
	stop := errors.New("stop")
	err = Read(context.Background(), root, &Filter{}, Options{Last: All}, func(Entry) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("emit failed, Read returned %v", err)
	}
}

// TestFollow: new records, a rotation, a new container and a removed one, while Read goes on.
func TestFollow(t *testing.T) {
	root := t.TempDir()
	first := write(t, root, id("a", "p", "x"), stream.Options{SegmentBytes: 1}, exit(1), exit(2))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	entries := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- Read(ctx, root, &Filter{Since: at(1)}, Options{Last: 1, Follow: true, Problem: func(err error) { t.Error(err) }},
			func(e Entry) error {
				select {
				case entries <- label(e):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
	}()
	want := func(want string) {
		t.Helper()
		select {
		case got := <-entries:
			if got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		case err := <-ended:
			t.Fatalf("ended with %v, want %s", err, want)
		}
	}
	want("p/x:2")
	add(t, first, exit(3), exit(4))
	want("p/x:3")
	want("p/x:4")
	second := write(t, root, id("a", "p2", "y"), stream.Options{}, exit(5), exit(6))
	want("p2/y:1")
	want("p2/y:2")
	if err := os.RemoveAll(stream.Dir(root, id("a", "p", "x"))); err != nil {
		t.Fatal(err)
	}
	add(t, second, exit(7))
	want("p2/y:3")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// TestSkipsOldSegments: what was last written before Since is not even opened.
func TestSkipsOldSegments(t *testing.T) {
	root := t.TempDir()
	w := write(t, root, id("a", "p", "x"), stream.Options{SegmentBytes: 1}, exit(1), exit(2), exit(3))
	segments, err := stream.Segments(stream.Dir(root, id("a", "p", "x")))
	if err != nil || len(segments) != 3 {
		t.Fatal(segments, err)
	}
	for i, s := range segments[:2] {
		if err := errors.Join(os.WriteFile(s.Path, []byte("damaged\n"), 0o600), os.Chtimes(s.Path, time.Time{}, at(i))); err != nil {
			t.Fatal(err)
		}
	}
	got, problems := read(t, root, Filter{Since: at(3)}, Options{Last: All})
	if diff := cmp.Diff("p/x:3", got); diff != "" || problems != nil {
		t.Errorf("%s, problems %v", diff, problems)
	}
	w.Close()
}
