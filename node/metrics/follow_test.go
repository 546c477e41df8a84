// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/node/pods"
)

func asItIs(_ string, key counter) counter { return key }

// world is a node whose containers come, write, and go or are killed, and what they wrote in truth since a moment.
type world struct {
	t        *testing.T
	rand     *rand.Rand
	root     string
	truth    map[counter]uint64
	timed    bool     // starts are
	starts   []string // instances whose start was timed, since that moment
	counting bool
	names    int
	at       time.Time
	pods     []*fakePod
	gone     []*fakePod
}

type fakePod struct {
	name      string
	container *instance // nil: none runs
}

type instance struct {
	id, dir string
	created time.Time
	writer  *stream.Writer
	tally   *tally.Tally
	earlier uint64
	timed   bool // its start is over
	killed  bool // its shim says nothing more, and the stream was not closed
}

func (w *world) event() *audit.Event {
	switch w.rand.IntN(4) {
	case 0:
		return &audit.Event{Time: w.at, Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			Verdict: audit.VerdictDenied, Origin: "baseline", RuleID: fmt.Sprint("r", w.rand.IntN(3)), Count: w.rand.Uint64N(50),
		}}
	case 1:
		return &audit.Event{Time: w.at, Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 3}}
	case 2:
		return &audit.Event{Time: w.at, Kind: audit.KindLimit, Limit: &audit.Limit{Resource: "memory"}}
	}
	return &audit.Event{Time: w.at, Kind: audit.KindSyscall, Syscall: &audit.Syscall{Class: "exec", Verdict: audit.VerdictAllowed}}
}

func (w *world) write(i *instance, n int) {
	for range n {
		if w.timed && !i.timed && w.rand.IntN(8) == 0 {
			i.timed = true
			if w.append(i, &audit.Event{Time: w.at, Kind: audit.KindTiming, Timing: &audit.Timing{}}); w.counting {
				w.starts = append(w.starts, i.id)
			}
		}
		w.append(i, w.event())
	}
}

func (w *world) append(i *instance, e *audit.Event) {
	if err := i.writer.Append(e); err != nil {
		w.t.Fatal(err)
	}
	if !w.counting {
		return
	}
	var one tally.Tally
	one.Add(e, stream.Position{})
	counts := one.Counts()
	for key, n := range flat(&counts) {
		w.truth[key] += n
	}
}

func (w *world) start(p *fakePod) {
	w.names++
	i := &instance{id: fmt.Sprint("c", w.names), created: w.at, tally: &tally.Tally{}}
	who := audit.Identity{Namespace: "ns", Pod: p.name, PodUID: p.name, Container: fmt.Sprint("c", w.rand.IntN(2)), ContainerID: i.id, Profile: "baseline"}
	i.dir = stream.Dir(w.root, who)
	var err error
	if i.writer, err = stream.OpenWriter(i.dir, who, stream.Options{SegmentBytes: 4000, Appended: i.tally.Add}); err != nil {
		w.t.Fatal(err)
	}
	i.earlier = i.writer.Seq()
	p.container = i
}

func (w *world) end(p *fakePod) {
	if err := p.container.writer.Close(); err != nil {
		w.t.Fatal(err)
	}
	p.container = nil
}

// step lets something happen.
func (w *world) step() {
	w.at = w.at.Add(time.Second)
	switch {
	case len(w.gone) > 0 && w.rand.IntN(30) == 0: // with another sandbox, and the same streams
		k := w.rand.IntN(len(w.gone))
		w.pods = append(w.pods, w.gone[k])
		w.gone = append(w.gone[:k], w.gone[k+1:]...)
	case len(w.pods) == 0 || w.rand.IntN(8) == 0:
		w.names++
		w.pods = append(w.pods, &fakePod{name: fmt.Sprint("p", w.names)})
	}
	k := w.rand.IntN(len(w.pods))
	p := w.pods[k]
	switch {
	case p.container == nil && w.rand.IntN(4) == 0: // the pod goes
		w.pods = append(w.pods[:k], w.pods[k+1:]...)
		w.gone = append(w.gone, p)
	case p.container == nil:
		w.start(p)
		w.write(p.container, w.rand.IntN(30))
	case p.container.killed:
		w.end(p) // as the next instance, or a delete action, would have it
	case w.rand.IntN(3) == 0:
		w.end(p)
	case w.rand.IntN(8) == 0:
		p.container.killed = true
	default:
		w.write(p.container, w.rand.IntN(60))
	}
}

// list is what pods.Node.Live would say.
func (w *world) list() (all []pods.Pod) {
	for _, p := range w.pods {
		pod := pods.Pod{Namespace: "ns", Name: p.name, UID: p.name, State: pods.Running, Shim: pods.Shim{Dir: p.name}}
		if i := p.container; i != nil {
			c := pods.Container{ID: i.id, Profile: "baseline", Created: i.created, Stream: &pods.Stream{Dir: i.dir}}
			if counts := i.tally.Counts(); !i.killed && w.rand.IntN(6) > 0 { // else it gave no answer in time
				c.Stream.Events, c.Stream.Counts = i.earlier+counts.Records, &counts
			}
			pod.Containers = append(pod.Containers, c)
		}
		all = append(all, pod)
	}
	return all
}

// Whatever comes and goes between two looks, each record is counted once, and nothing is counted that is none or that was there before;
// each start is told once.
func TestEachRecordIsCountedOnce(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), root: t.TempDir(), truth: map[counter]uint64{}, at: time.Unix(1_800_000_000, 0), timed: true}
			got, told := map[counter]uint64{}, map[string]int{}
			f := follower{show: asItIs, tell: func(_ string, r *record.Record) { told[r.Identity.ContainerID]++ }, add: func(_, profile string, key counter, n uint64) {
				if profile != "baseline" {
					t.Errorf("%s: of profile %q", key.name, profile)
				}
				if key.name != "stalls" {
					got[key] += n // n is unsigned: nothing goes down
				}
			}}
			for range 20 {
				w.step()
			}
			w.at = w.at.Add(time.Second)
			began := w.at
			look := func() {
				damages, _, err := f.update(t.Context(), w.list(), []string{w.root}, began)
				if err != nil || len(damages) > 0 {
					t.Fatal(damages, err)
				}
				for key, n := range got {
					if n > w.truth[key] {
						t.Fatalf("%v: %d were counted, and there were %d", key, n, w.truth[key])
					}
				}
			}
			look()
			w.counting = true
			for range 150 {
				w.step()
				if w.rand.IntN(3) == 0 {
					look()
				}
			}
			for _, p := range w.pods {
				if p.container != nil {
					w.end(p)
				}
			}
			w.pods = nil
			for range rest + 1 {
				look()
			}
			if diff := cmp.Diff(w.truth, got, cmp.AllowUnexported(counter{})); diff != "" {
				t.Errorf("(-there were +counted)\n%s", diff)
			}
			for _, id := range w.starts {
				if told[id] == 0 {
					t.Errorf("the start of %s was not told", id)
				}
			}
			for id, n := range told {
				if n != 1 {
					t.Errorf("the start of %s was told %d times", id, n)
				}
			}
			if len(w.starts) < 3 {
				t.Errorf("%d starts: nothing is tested", len(w.starts))
			}
			if err := os.RemoveAll(w.root); err != nil {
				t.Fatal(err)
			}
			if look(); len(f.tracks) > 0 {
				t.Errorf("%d tracks are left of streams that are gone", len(f.tracks))
			}
		})
	}
}

// What one look cannot read the next ones do.
func TestReadingIsBounded(t *testing.T) {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 1)), root: t.TempDir(), truth: map[counter]uint64{}, counting: true}
	p := &fakePod{name: "p"}
	w.start(p)
	w.write(p.container, 300)
	dir := p.container.dir
	w.end(p)
	got := map[counter]uint64{}
	f := &follower{show: asItIs, add: func(_, _ string, key counter, n uint64) { got[key] += n }}
	looks := 1
	for ; ; looks++ {
		r := reader{follower: f, left: 10_000, damages: map[string]uint64{}}
		if r.read(t.Context(), dir, f.track(dir), false) {
			break
		}
		if r.left < -audit.MaxRecord {
			t.Fatalf("%d bytes too many", -r.left)
		}
	}
	if looks < 3 || !maps.Equal(got, w.truth) {
		t.Errorf("after %d looks: %v, want %v", looks, got, w.truth)
	}
}

// What a guest makes up takes no memory, told or read.
func TestMadeUpNames(t *testing.T) {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 1)), root: t.TempDir(), truth: map[counter]uint64{}}
	p := &fakePod{name: "p"}
	w.start(p)
	for i := range 500 {
		e := denial(fmt.Sprint("origin", i), fmt.Sprint("rule", i), 1)
		e.Syscall.Class = fmt.Sprint("class", i)
		if err := p.container.writer.Append(&e); err != nil {
			t.Fatal(err)
		}
	}
	dir := p.container.dir
	w.end(p)
	var known names
	got := map[counter]uint64{}
	f := &follower{show: known.show, add: func(_, _ string, key counter, n uint64) { got[key] += n }}
	r := reader{follower: f, left: maxRead, damages: map[string]uint64{}}
	if !r.read(t.Context(), dir, f.track(dir), false) {
		t.Fatal("it was not read to its end")
	}
	want := map[counter]uint64{
		{name: "records"}: 500, {name: "denials", of: [2]string{"other", "other"}}: 500, {name: "calls", of: [2]string{"other", "denied"}}: 500,
	}
	if !maps.Equal(got, want) || len(f.track(dir).counted) != len(want) {
		t.Errorf("%v, %v", got, f.track(dir).counted)
	}
}

// A record that is damaged is passed over and said.
func TestDamageIsPassedOver(t *testing.T) {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 1)), root: t.TempDir(), truth: map[counter]uint64{}}
	p := &fakePod{name: "p"}
	w.start(p)
	w.write(p.container, 3)
	dir := p.container.dir
	w.end(p)
	segment := filepath.Join(dir, "00000001.ndjson")
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment, append([]byte("{}\n"), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	got := map[counter]uint64{}
	f := &follower{show: asItIs, add: func(_, _ string, key counter, n uint64) { got[key] += n }}
	r := reader{follower: f, left: maxRead, damages: map[string]uint64{}}
	if !r.read(t.Context(), dir, f.track(dir), false) || got[counter{name: "records"}] != 3 || r.damages[Unknown] != 1 {
		t.Errorf("%v, %v", got, r.damages)
	}
}

// Starts whose place is told count into what one look reads; what it leaves the next ones tell.
func TestTellingIsBounded(t *testing.T) {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 1)), root: t.TempDir()}
	p := &fakePod{name: "p"}
	var dir string
	var places []stream.Position
	for range 3 {
		w.start(p)
		w.append(p.container, &audit.Event{Time: w.at, Kind: audit.KindTiming, Timing: &audit.Timing{}})
		dir, places = p.container.dir, append(places, *p.container.tally.Counts().Places.Timing)
		w.end(p)
	}
	told := 0
	f := &follower{show: asItIs, tell: func(string, *record.Record) { told++ }}
	track := f.track(dir)
	track.untold = append(places, stream.Position{Segment: 9}) // which is gone
	for look := 1; ; look++ {
		r := reader{follower: f, left: 1, damages: map[string]uint64{}}
		if r.read(t.Context(), dir, track, true) {
			break
		}
		if told != look {
			t.Fatalf("after %d looks %d starts are told", look, told)
		}
	}
	if told != 3 {
		t.Errorf("%d starts are told", told)
	}
}
