// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// never is an interval in which no test ends: what is flushed, a test has flushed.
const never = 24 * time.Hour

// TestGroupCommit: calls that wait for the disk while it is busy share the next sync.
func TestGroupCommit(t *testing.T) {
	w := open(t, t.TempDir(), Options{Synced: true, FlushInterval: never})
	var syncs atomic.Int32
	began, goOn := make(chan struct{}, 100), make(chan struct{})
	w.sync = func(f *os.File) error {
		if f == w.segment {
			syncs.Add(1)
			began <- struct{}{}
			<-goOn
		}
		return datasync(f)
	}
	var wg sync.WaitGroup
	var answered atomic.Int32
	one := func() {
		if err := w.Append(call(1)); err != nil {
			t.Error(err)
		}
		answered.Add(1)
	}
	wg.Go(one)
	<-began
	const others = 8
	for range others {
		wg.Go(one)
	}
	for w.Seq() < 1+others {
		time.Sleep(time.Millisecond)
	}
	if n := answered.Load(); n != 0 {
		t.Errorf("%d calls went on before their records were on the disk", n)
	}
	close(goOn)
	wg.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs for %d records, the first of which was alone; want 2", n, 1+others)
	}
}

// TestCloseWaits: Close lets a flush end that is under way, also if what a failed write left behind keeps it from one of its own.
func TestCloseWaits(t *testing.T) {
	w := open(t, t.TempDir(), Options{FlushInterval: never})
	began, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	w.sync = func(f *os.File) error {
		if first.CompareAndSwap(false, true) {
			close(began)
			<-goOn
		}
		return datasync(f)
	}
	appendAll(t, w, 1)
	synced, closed := make(chan error, 1), make(chan error, 1)
	go func() { synced <- w.Sync() }()
	<-began
	w.mu.Lock()
	w.torn, w.truncate = true, func(*os.File, int64) error { return unix.EIO }
	w.mu.Unlock()
	go func() { closed <- w.Close() }()
	eventually(t, "it is being closed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.closed
	})
	close(goOn)
	if err := <-synced; err != nil {
		t.Errorf("the flush: %v", err)
	}
	if err := <-closed; !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}
}

// TestBatchedDoesNotWait: without Synced a record costs a write, and what is complete or counted waits for the flush too.
func TestBatchedDoesNotWait(t *testing.T) {
	w := open(t, t.TempDir(), Options{FlushInterval: never})
	var syncs []string
	w.sync = func(f *os.File) error {
		syncs = append(syncs, filepath.Base(f.Name()))
		return datasync(f)
	}
	appendAll(t, w, 20)
	if err := w.Fold(3); err != nil || syncs != nil {
		t.Errorf("synced %v, %v", syncs, err)
	}
	if err := w.Sync(); err != nil || len(syncs) != 2 || syncs[0] != "folded" || syncs[1] != "00000001.ndjson" {
		t.Errorf("synced %v, %v", syncs, err)
	}
	if err := w.Sync(); err != nil || len(syncs) != 2 {
		t.Errorf("nothing came, and synced %v, %v", syncs, err)
	}
}

// TestBatchedFlushes: the clock brings records to the disk, each time anew.
func TestBatchedFlushes(t *testing.T) {
	w := open(t, t.TempDir(), Options{FlushInterval: 10 * time.Millisecond})
	for n := uint64(1); n <= 3; n++ {
		appendAll(t, w, 1)
		for {
			w.mu.Lock()
			durable := w.durable.seq
			w.mu.Unlock()
			if durable == n {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestSyncedOverSegments: whatever the segment, a record that was acknowledged is on the disk.
func TestSyncedOverSegments(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{Synced: true, SegmentBytes: 2000, FlushInterval: never})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 10 {
				if err := w.Append(call(i)); err != nil {
					t.Error(err)
				}
				w.mu.Lock()
				if w.durable.seq > w.seq || w.durable.seq < w.seq && !w.flushing && w.done == w.tickets {
					t.Errorf("%d of %d records are on the disk", w.durable.seq, w.seq)
				}
				w.mu.Unlock()
			}
		})
	}
	wg.Wait()
	check(t, Dir(root, testID), 40)
}

// TestSyncedSyncFails: what could not be brought to the disk is taken back, so that it is written again before it is synced again: the
// kernel would say of the same pages that all is well.
func TestSyncedSyncFails(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	w := open(t, root, Options{Synced: true, FlushInterval: never})
	appendAll(t, w, 2)
	if err := w.Fold(7); err != nil {
		t.Fatal(err)
	}
	for _, fails := range []string{"00000001.ndjson", "folded"} {
		fault := true
		w.sync = func(f *os.File) error {
			if fault && filepath.Base(f.Name()) == fails {
				return unix.EIO
			}
			return datasync(f)
		}
		seq, bytes := w.Seq(), w.Bytes()
		for range 3 {
			err := w.AppendFolded(call(1), 2)
			var we *WriteError
			if !errors.As(err, &we) || we.Op != "sync" || !errors.Is(err, unix.EIO) {
				t.Fatalf("%s: error %v, want a WriteError of a sync", fails, err)
			}
			if w.Seq() != seq || w.Bytes() != bytes {
				t.Errorf("%s: record %d, %d bytes after a failure; want %d, %d", fails, w.Seq(), w.Bytes(), seq, bytes)
			}
			check(t, dir, seq)
		}
		folded := w.Folded()
		fault = false
		if err := w.AppendFolded(call(1), 2); err != nil || w.Folded() != folded-2 {
			t.Errorf("%s: afterwards: %v, %d folded of %d", fails, err, w.Folded(), folded)
		}
		check(t, dir, seq+1)
	}
	if w.Folded() != 3 {
		t.Errorf("%d folded, want 3", w.Folded())
	}
}

// TestAllThatWaitAreTold: one failure is the failure of each record that it was to bring to the disk, and of those that came meanwhile.
func TestAllThatWaitAreTold(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{Synced: true, FlushInterval: never})
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	var fault atomic.Bool
	fault.Store(true)
	w.sync = func(f *os.File) error {
		if fault.Load() {
			began <- struct{}{}
			<-goOn
			fault.Store(false)
			return unix.EIO
		}
		return datasync(f)
	}
	var wg sync.WaitGroup
	var failures atomic.Int32
	one := func() {
		for w.Append(call(1)) != nil {
			failures.Add(1)
		}
	}
	wg.Go(one)
	<-began
	for range 3 {
		wg.Go(one)
	}
	for w.Seq() < 4 {
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	wg.Wait()
	if n := failures.Load(); n != 4 {
		t.Errorf("%d calls were told, want 4", n)
	}
	check(t, Dir(root, testID), 4)
}

// TestBatchedSyncFails: nothing more is taken until what failed was written again, and synced.
func TestBatchedSyncFails(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{FlushInterval: never, SegmentBytes: 2000})
	appendAll(t, w, 1)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	fault, goOn := failing(w), make(chan struct{})
	fails := w.sync
	w.sync = func(f *os.File) error { // a flush that a new segment has called for fails when all is written
		<-goOn
		return fails(f)
	}
	appendAll(t, w, 5)
	close(goOn)
	for range 2 {
		if err := w.Sync(); !errors.Is(err, unix.EIO) {
			t.Fatalf("error %v", err)
		}
		var we *WriteError
		if err := w.Append(call(1)); !errors.As(err, &we) || we.Op != "sync" {
			t.Errorf("error %v: a record was taken", err)
		}
	}
	fault.Store(false)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(call(1)); err != nil {
		t.Error(err)
	}
	check(t, Dir(root, testID), 7)
}

// failing has all syncs fail, until it is told otherwise.
func failing(w *Writer) *atomic.Bool {
	fault := new(atomic.Bool)
	fault.Store(true)
	w.sync = func(f *os.File) error {
		if fault.Load() {
			return unix.EIO
		}
		return datasync(f)
	}
	return fault
}

// TestRecordsGone: a file system that has dropped what it could not write is not believed.
func TestRecordsGone(t *testing.T) {
	root := t.TempDir()
	w, err := OpenWriter(Dir(root, testID), testID, Options{FlushInterval: never})
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, w, 3)
	path := w.segment.Name()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fault := failing(w)
	if err := w.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, len(whole)), 0o600); err != nil {
		t.Fatal(err)
	}
	fault.Store(false)
	if err := w.Sync(); err == nil {
		t.Error("it was synced")
	}
	if err := w.Append(call(1)); err == nil {
		t.Error("a record was taken")
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	check(t, Dir(root, testID), 3)
}

func TestSyncedAppendDoesNotAllocate(t *testing.T) {
	w := open(t, t.TempDir(), Options{Synced: true})
	e := call(1)
	if n := testing.AllocsPerRun(200, func() {
		if err := w.Append(e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestFoldedOutlivesTheNode: whichever of the counters' states a failing node leaves with whichever records, no denial is lost.
func TestFoldedOutlivesTheNode(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	w := open(t, root, Options{FlushInterval: never})
	appendAll(t, w, 1)
	var states [][]byte // of the counters, since the last flush
	note := func() {
		data, err := os.ReadFile(filepath.Join(dir, foldedName))
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, data)
	}
	if err := errors.Join(w.Fold(10), w.Sync()); err != nil {
		t.Fatal(err)
	}
	note()
	w.write = func(f *os.File, b []byte) (int, error) { note(); return f.Write(b) }
	for _, n := range []uint64{4, 3} {
		if err := w.AppendFolded(call(1), n); err != nil {
			t.Fatal(err)
		}
		note()
	}
	if w.Folded() != 3 {
		t.Errorf("%d folded, want 3", w.Folded())
	}
	segment, err := os.ReadFile(w.segment.Name())
	if err != nil {
		t.Fatal(err)
	}
	var ends []int // of records 1, 2 and 3
	for i, b := range segment {
		if b == '\n' {
			ends = append(ends, i+1)
		}
	}
	for i, counters := range states {
		for records, in := range map[int]uint64{1: 0, 2: 4, 3: 7} { // how many denials so many records stand for
			at := copyStream(t, dir)
			if err := errors.Join(os.WriteFile(filepath.Join(Dir(at, testID), foldedName), counters, 0o600),
				os.Truncate(filepath.Join(Dir(at, testID), segmentName(1)), int64(ends[records-1]))); err != nil {
				t.Fatal(err)
			}
			next := open(t, at, Options{})
			if got := next.Recovered().Folded + in; got < 10 || got > 17 {
				t.Errorf("state %d with %d records: %d denials in all, of 10", i, records, got)
			}
		}
	}
	w.write = (*os.File).Write
}
