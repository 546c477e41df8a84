// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
)

// onDisk is how many bytes the files below a directory have.
func onDisk(t testing.TB, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		sum += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// fill appends until the stream takes no more, and returns why.
func fill(t testing.TB, w *Writer) error {
	t.Helper()
	for range 1_000_000 {
		if err := w.Append(call(1)); err != nil {
			return err
		}
	}
	t.Fatal("it takes everything")
	return nil
}

// eventually waits until what a look at the disk finds has an effect.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within minutes", what)
		}
	}
}

func container(n int) audit.Identity {
	id := testID
	id.Container = fmt.Sprint("c", n)
	return id
}

// TestPodBudget: whatever its containers do, at the same time and one after the other, a pod's streams take no more than they may, and
// each container has its first 64 KiB.
func TestPodBudget(t *testing.T) {
	const budget, containers = 4 << 20, 12
	root := t.TempDir()
	b := NewBudget(root, budget, 0)
	var writers []*Writer
	for n := range containers {
		w, err := OpenWriter(Dir(root, container(n)), container(n), Options{SegmentBytes: 1 << 20, Budget: b})
		if err != nil {
			t.Fatal(err)
		}
		writers = append(writers, w)
	}
	full := make(chan error, containers)
	for _, w := range writers {
		go func() {
			var err error
			for err == nil {
				err = w.Append(call(1))
			}
			full <- err
		}()
	}
	for range writers {
		err := <-full
		var we *WriteError
		if !errors.As(err, &we) || !we.Full() || !errors.Is(err, unix.EDQUOT) || !strings.Contains(err.Error(), "audit.pod_budget") {
			t.Fatal(err)
		}
	}
	taken := onDisk(t, root)
	if taken > budget+containers*first || taken < budget/2 {
		t.Errorf("%d bytes of a budget of %d", taken, budget)
	}
	for _, w := range writers {
		if w.Bytes() < first-2000 {
			t.Errorf("a container has %d bytes", w.Bytes())
		}
		if err := w.Append(call(1)); err == nil {
			t.Error("one more record is taken")
		}
		for _, e := range []*audit.Event{{Kind: audit.KindExit, Exit: &audit.Exit{}}, {Kind: audit.KindEnd, End: &audit.End{}}} {
			if err := w.Append(e); err != nil {
				t.Errorf("its last words are not: %v", err)
			}
		}
	}
	// Retention makes room.
	most := slices.MaxFunc(writers, func(a, b *Writer) int { return cmp.Compare(a.Bytes(), b.Bytes()) })
	if err := errors.Join(most.Close(), os.RemoveAll(most.dir.Name())); err != nil {
		t.Fatal(err)
	}
	for _, w := range writers {
		if w != most {
			eventually(t, "a record with room again", func() bool { return w.Append(call(1)) == nil })
			break
		}
	}
	for _, w := range writers {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(b.held) != 0 {
		t.Errorf("%d segments are held behind the end", len(b.held))
	}
}

// TestNodeBudget: what other pods take counts, and so do files that are none of ours.
func TestNodeBudget(t *testing.T) {
	root := t.TempDir()
	other := root + "/other_pod_uid/c"
	if err := errors.Join(os.MkdirAll(other, 0o700), os.WriteFile(other+"/00000001.ndjson.zst", make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	w := open(t, root, Options{SegmentBytes: 200_000, Budget: NewBudget(root, 0, 1<<20)})
	err := fill(t, w)
	if !errors.Is(err, unix.EDQUOT) || !strings.Contains(err.Error(), "audit.node_budget") {
		t.Fatal(err)
	}
	if w.number > 1 || w.size < first-2000 {
		t.Errorf("it is in segment %d, of %d bytes", w.number, w.size)
	}
	if err := os.RemoveAll(other); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a record with room again", func() bool { return w.Append(call(1)) == nil })
}

// TestLookIsBounded: whoever makes files and directories without end makes the budget full, and nobody wait.
func TestLookIsBounded(t *testing.T) {
	root := t.TempDir()
	for i := range 3000 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", root, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := look{pods: map[string]int64{}}
	l.at(root, 0, 1000*block)
	if l.all < 1000*block || l.all > 1300*block {
		t.Errorf("%d files of 3000 were looked at", l.all/block)
	}
	if l := (look{pods: map[string]int64{root + "/none": 0}}); true {
		l.at(root+"/none", 1<<20, 1<<20)
		if l.all != block {
			t.Errorf("of nothing: %d", l.all)
		}
	}
}

// TestRestartedContainers: who begins anew, again and again, has no more than who does not.
func TestRestartedContainers(t *testing.T) {
	const budget = 1 << 20
	root := t.TempDir()
	b := NewBudget(root, budget, 0)
	for range 30 {
		w := open(t, root, Options{SegmentBytes: 256 << 10, Budget: b})
		for range 200 {
			if err := w.Append(call(1)); err != nil {
				break
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if taken := onDisk(t, root); taken > budget+2*first {
		t.Errorf("%d bytes", taken)
	}
}

// TestSegmentAge: the first record that comes too late begins a segment; without one nothing happens, and nothing is empty.
func TestSegmentAge(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{SegmentAge: time.Hour})
	appendAll(t, w, 3)
	if w.number != 1 {
		t.Fatalf("segment %d", w.number)
	}
	w.began = w.began.Add(-2 * time.Hour)
	appendAll(t, w, 3)
	if w.number != 2 {
		t.Errorf("segment %d of records that came later", w.number)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// Whoever goes on counts from the segment's first record, which is of 2027.
	w = open(t, root, Options{SegmentAge: time.Hour})
	if got := w.began.Unix(); got != 1_800_000_000 {
		t.Errorf("the segment began at %d", got)
	}
	// A segment that cannot be begun is no reason to refuse what fits.
	w.began = time.Now().Add(-2 * time.Hour)
	w.space = func() (uint64, uint64, error) { return 0, 1 << 40, nil }
	appendAll(t, w, 3)
	if w.number != 2 {
		t.Errorf("segment %d on a full disk", w.number)
	}
	if again := time.Until(w.began.Add(w.age)); again <= 0 || again > tryAgain {
		t.Errorf("it is tried again after %s", again)
	}
	check(t, Dir(root, testID), 9)
}

// settled waits until nobody looks at the disk.
func settled(t testing.TB, b *Budget) {
	t.Helper()
	eventually(t, "nobody looks", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return !b.looking
	})
}

// TestPodWithoutWriter: what a pod has on the disk is known also when a look came while none of its containers ran.
func TestPodWithoutWriter(t *testing.T) {
	const budget = 256 << 10
	root := t.TempDir()
	b := NewBudget(root, budget, 0)
	o := Options{SegmentBytes: 128 << 10, Budget: b}
	w := open(t, root, o)
	if err := fill(t, w); !errors.Is(err, unix.EDQUOT) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	settled(t, b)
	b.lookOnce(0)
	b.mu.Lock()
	b.looked, b.pause = time.Now(), time.Hour // the container is faster than the next look
	b.mu.Unlock()
	if err := fill(t, open(t, root, o)); !errors.Is(err, unix.EDQUOT) {
		t.Fatal(err)
	}
	if taken := onDisk(t, root); taken > budget+first {
		t.Errorf("%d bytes of a budget of %d", taken, budget)
	}
}

// TestSegmentAboutToBeMade: what was granted counts, though a look does not find the file yet.
func TestSegmentAboutToBeMade(t *testing.T) {
	const budget, segment = 1 << 20, 512 << 10
	root := t.TempDir()
	b := NewBudget(root, budget, 0)
	path := filepath.Join(Dir(root, testID), segmentName(1))
	b.enter(path, 0, segment)
	if limit, err := b.grant(path, segment); limit != segment || err != nil {
		t.Fatal(limit, err)
	}
	settled(t, b)
	b.lookOnce(0)
	if limit, err := b.grant(filepath.Join(Dir(root, testID), segmentName(2)), budget); limit > budget-segment || err != nil {
		t.Errorf("%d bytes of %d are left, %v", limit, budget-segment, err)
	}
}
