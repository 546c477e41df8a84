// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/stream"
)

// TestKilledAtEachStep: wherever a round is killed, what it leaves is proven, and the next one comes to the same end.
func TestKilledAtEachStep(t *testing.T) {
	n := newNode(t)
	w := n.open(identity("p", "c"))
	n.records(w, 130)
	n.ended("p", "d", 70)
	n.ended("q", "c", 40)
	defer n.end(w)
	policy := Policy{Compress: true, MaxAge: 90 * time.Minute}
	const later = 2 * time.Hour
	tree := func(n *node) string {
		var list []string
		err := filepath.WalkDir(n.root, func(path string, e os.DirEntry, err error) error {
			path, _ = filepath.Rel(n.root, path)
			if base := filepath.Base(path); base != "removals" && base != "ledger" && base != summaryName { // which may say a thing twice
				list = append(list, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, "\n")
	}
	for _, p := range []Policy{{Compress: true}, policy} {
		var killed []*node
		var steps []string
		n.round(p, later, func(r *Round) {
			r.step = func(step string) { steps, killed = append(steps, step), append(killed, n.clone()) }
		})
		if len(steps) < 8 {
			t.Fatalf("only %v", steps)
		}
		want := tree(n)
		for i, k := range killed {
			k.proven("killed behind step " + steps[i])
			k.round(p, later)
			k.proven("after another round behind step " + steps[i])
			if got := tree(k); got != want {
				t.Errorf("killed behind step %s, and then:\n%s\nwant\n%s", steps[i], got, want)
			}
			if _, err := os.Stat(filepath.Join(k.root, graveyard)); err == nil {
				if left, _ := os.ReadDir(filepath.Join(k.root, graveyard)); len(left) > 0 {
					t.Errorf("behind step %s there is left %v", steps[i], left)
				}
			}
		}
	}
}

// TestBesideWriterAndVerify: rounds go on while streams are written, read and verified, and nobody notices.
func TestBesideWriterAndVerify(t *testing.T) {
	n := newNode(t)
	for i := range 16 {
		var beside sync.WaitGroup
		for _, container := range []string{"c", "d"} {
			beside.Go(func() {
				w := n.open(identity("p", container))
				n.records(w, 60)
				n.end(w)
			})
		}
		beside.Go(func() {
			p := Policy{Compress: true, NodeSize: 100 << 10}
			if i%5 == 4 {
				p.NodeSize = 1
			}
			n.round(p, time.Duration(i%2)*2*time.Hour, func(r *Round) { r.Problem = nil })
		})
		n.proven("meanwhile")
		beside.Wait()
		n.proven("afterwards")
	}
}

// TestDamagedStays: what is not as it was signed is evidence. It is neither compressed nor removed, and said.
func TestDamagedStays(t *testing.T) {
	for what, damage := range map[string]func(dir string) error{
		"a changed record": func(dir string) error {
			path := dir + "/00000001.ndjson"
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, bytes.Replace(data, []byte(`"pid":41`), []byte(`"pid":42`), 1), 0o600))
		},
		"a longer segment": func(dir string) error {
			file, err := os.OpenFile(dir+"/00000001.ndjson", os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = file.WriteString("{}\n")
			return errors.Join(err, file.Close())
		},
		"a changed manifest": func(dir string) error {
			data, err := os.ReadFile(dir + "/manifest")
			return errors.Join(err, os.WriteFile(dir+"/manifest", bytes.Replace(data, []byte(`"last":`), []byte(`"lasT":`), 1), 0o600))
		},
		"a link for a segment": func(dir string) error {
			return errors.Join(os.Rename(dir+"/00000001.ndjson", dir+"/elsewhere"), os.Symlink("elsewhere", dir+"/00000001.ndjson"))
		},
	} {
		for _, p := range []Policy{compress, {MaxAge: time.Hour}} {
			n := newNode(t)
			dir := n.ended("p", "c", 100)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			var problems []error
			report, did := n.round(p, 2*time.Hour, func(r *Round) { r.Problem = func(err error) { problems = append(problems, err) } })
			if len(did) > 0 && did[0].From == 1 || len(problems) == 0 || report.Problems == 0 {
				t.Errorf("%s, %+v: did %v, problems %v", what, p, did, problems)
			}
			if left, _ := filepath.Glob(dir + "/*" + temporary); left != nil {
				t.Errorf("%s: %v is left", what, left)
			}
		}
	}
	n := newNode(t)
	dir := n.ended("p", "c", 100)
	n.round(compress, 2*time.Hour)
	other := n.ended("q", "c", 100)
	n.round(compress, 2*time.Hour)
	if err := os.Rename(other+"/00000002.ndjson.zst", dir+"/00000002.ndjson.zst"); err != nil {
		t.Fatal(err)
	}
	_, did := n.round(Policy{MaxAge: time.Hour}, 2*time.Hour, func(r *Round) { r.Problem = nil })
	same(t, "another's compressed segment", names(t, dir), "2.ndjson.zst", "3.ndjson.zst", "4.ndjson.zst")
	if len(did) == 0 {
		t.Error("nothing of it was removed")
	}
}

// TestWithoutKey: what could not be told is not removed.
func TestWithoutKey(t *testing.T) {
	n := newNode(t)
	n.ended("p", "c", 100)
	var problems []error
	_, did := n.round(Policy{MaxAge: time.Nanosecond}, 2*time.Hour, func(r *Round) {
		r.Key, r.Problem = nil, func(err error) { problems = append(problems, err) }
	})
	if did != nil || len(problems) != 1 {
		t.Errorf("%v, %v", did, problems)
	}
}

// TestDryRun: what it tells is what the next round does, and it changes nothing.
func TestDryRun(t *testing.T) {
	n := newNode(t)
	w := n.open(identity("p", "c"))
	n.records(w, 100)
	n.ended("p", "d", 100)
	p := Policy{MaxAge: time.Hour, Compress: true}
	before := n.clone()
	report, would := n.round(p, 2*time.Hour, func(r *Round) { r.DryRun = true })
	if n.faults() != nil || !report.DryRun {
		t.Error("it has changed something")
	}
	list := func(n *node) string {
		paths, _ := filepath.Glob(n.root + "/*/*/*")
		return strings.ReplaceAll(strings.Join(paths, "\n"), n.root, "")
	}
	if got, want := list(n), list(before); got != want || want == "" {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
	_, did := n.round(p, 2*time.Hour)
	if len(would) != len(did) {
		t.Errorf("it said %v, and did %v", would, did)
	}
	n.end(w)
}

// TestOneAtATime: a second process is refused.
func TestOneAtATime(t *testing.T) {
	n := newNode(t)
	n.ended("p", "c", 100)
	refused := false
	n.round(compress, 2*time.Hour, func(r *Round) {
		r.step = func(string) {
			second := Round{Root: n.root, Key: n.key, Keys: n.keys}
			_, err := second.Run(t.Context())
			refused = errors.Is(err, ErrBusy)
		}
	})
	if !refused {
		t.Error("it is not")
	}
	if _, err := (&Round{Root: n.root + "/none"}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no streams: %v", err)
	}
}

// TestSummary: rounds add up, and a file that is none begins anew.
func TestSummary(t *testing.T) {
	n := newNode(t)
	if _, err := LoadSummary(n.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before the first round: %v", err)
	}
	n.ended("p", "c", 100)
	first, _ := n.round(compress, 2*time.Hour)
	n.ended("p", "d", 100)
	second, _ := n.round(Policy{Compress: true, MaxAge: time.Hour}, 2*time.Hour)
	s, err := LoadSummary(n.root)
	if err != nil || s.Last != second || s.Total.Compressed != uint64(first.Compressed+second.Compressed) || s.Total.Whole != 2 || s.Total.Removed != uint64(second.Removed) {
		t.Errorf("%+v, %v", s, err)
	}
	path := n.root + "/" + summaryName
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.round(compress, 2*time.Hour, func(r *Round) { r.Problem = nil })
	if s, err = LoadSummary(n.root); err != nil || s.Total.Compressed != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	n.proven("with it")
}

// TestRestartedMeanwhile: a stream whose container is started again while its last segment is compressed, or before it is removed, stays.
func TestRestartedMeanwhile(t *testing.T) {
	for _, p := range []Policy{{Compress: true}, {MaxAge: time.Hour}} {
		n := newNode(t)
		dir := n.ended("p", "c", 10)
		var w *stream.Writer
		start := func() {
			if w == nil {
				w = n.open(identity("p", "c"))
			}
		}
		n.round(p, 2*time.Hour, func(r *Round) {
			r.step = func(string) { start() }
			r.Confirmed = func(string, string) uint64 { start(); return 1 << 60 }
		})
		same(t, "its segments", names(t, dir), "1.ndjson")
		n.end(w)
		n.proven("afterwards")
	}
}

// TestUntoldSegment: of a segment that could not be read when it was told of, nobody knows which records a sink has to have confirmed.
func TestUntoldSegment(t *testing.T) {
	n := newNode(t)
	dir := n.ended("p", "c", 100)
	s, err := look(stream.Stream{Path: dir, Pod: "a_p_u", Container: "c"})
	if err != nil {
		t.Fatal(err)
	}
	told, err := s.read(n.keys)
	if err != nil {
		t.Fatal(err)
	}
	told.lines[2].Last, told.lines[2].Bytes = 0, 0
	w := &work{Round: &Round{Policy: Policy{MaxAge: time.Hour}, Key: n.key, Keys: n.keys, now: time.Now}}
	units, err := w.units(s)
	if err != nil || len(units) != 1 || units[0].number != 1 {
		t.Errorf("%+v, %v", units, err)
	}
}

// TestEndedAnew: what an unsigned stream has got since it was looked at is not removed with the rest.
func TestEndedAnew(t *testing.T) {
	n := newNode(t)
	n.key = nil
	dir := n.ended("p", "c", 10)
	_, did := n.round(Policy{MaxAge: time.Hour}, 2*time.Hour, func(r *Round) {
		r.Confirmed = func(string, string) uint64 {
			n.ended("p", "c", 10)
			return 11
		}
	})
	if got := count(t, dir); got != 22 || did != nil {
		t.Errorf("%d records are left, did %+v", got, did)
	}
}
