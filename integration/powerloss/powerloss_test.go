// SPDX-License-Identifier: Apache-2.0

package powerloss

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

const bootID = "/proc/sys/kernel/random/boot_id"

// boot is a file that lies over the kernel's boot id.
var boot string

// TestMain has the tests run in a mount namespace of their own, where the boot id is a file that they write.
func TestMain(m *testing.M) {
	const inside = "METSUKE_POWERLOSS_BOOT"
	if boot = os.Getenv(inside); boot != "" {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(boot, bootID, "", unix.MS_BIND, "")); err != nil {
			fmt.Fprintln(os.Stderr, "lay a file over the boot id (needs root):", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	os.Exit(alone(inside))
}

// alone runs this program again in a mount namespace.
func alone(inside string) int {
	file, err := os.CreateTemp("", "boot")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.Remove(file.Name())
	file.Close()
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+file.Name())
	if unix.Access("/dev/shm", unix.W_OK) == nil { // thousands of streams are written
		cmd.Env = append(cmd.Env, "TMPDIR=/dev/shm")
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is of the thread
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}

// reboot has the kernel be another boot's.
func reboot(t *testing.T, id string) {
	t.Helper()
	if err := os.WriteFile(boot, []byte(id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

var id = audit.Identity{Node: "n", Namespace: "a", Pod: "p", PodUID: "u", Container: "c", ContainerID: "i", Profile: "x"}

// promise is what must be there after a power failure.
type promise struct {
	records []uint64 // marks of records that must be there
	folded  uint64   // denials that must be counted
	open    bool     // a writer has the stream, so the next one must find an outage
	closed  bool     // it was closed, so it must not
}

// failure is a power failure: what was on the disk then, and what was promised.
type failure struct {
	what    string
	ordered bool // nothing that is there came after something that is not
	promise
	tree map[string][]byte
}

// A workload writes to a stream on a disk, and notes what it was promised.
type workload struct {
	t       *testing.T
	disk    *disk
	options stream.Options
	dir     string

	mu      sync.Mutex
	next    uint64            // mark of the next record; guarded by mu, as all below
	done    promise           // what was acknowledged
	safe    promise           // what must survive
	settled map[uint64]uint64 // by the mark of a record, how many denials it stands for
}

// failEach has the power fail after each operation of the disk that keep says: nothing of what was not synced is on the disk then, and,
// in another life, some of it, or all, or what came first.
func (w *workload) failEach(seed uint64, keep func(r *rand.Rand) bool) *[]failure {
	r, list, step := rand.New(rand.NewPCG(seed, 1)), &[]failure{}, 0
	w.disk.watch = func() {
		step++
		if !keep(r) {
			return
		}
		w.mu.Lock()
		now := w.safe
		now.records = slices.Clone(now.records)
		w.mu.Unlock()
		ways := map[string]loss{"nothing": nothing, "some": some(r)}
		switch step % 4 {
		case 0:
			ways["everything"] = everything
		case 2:
			ways["first"] = first(r)
		}
		for name, lost := range ways {
			what := fmt.Sprintf("seed %d, after operation %d, %s of what was not synced", seed, step, name)
			*list = append(*list, failure{what, name == "nothing" || name == "everything", now, w.disk.afterFailure(lost)})
		}
	}
	return list
}

func (w *workload) open() *stream.Writer {
	w.promised(func() { w.safe.open, w.safe.closed = false, false })
	s, err := stream.OpenWriter(stream.Dir(w.dir, id), id, w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.promised(func() { w.safe.open = true })
	return s
}

func (w *workload) promised(note func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	note()
}

// acknowledged notes what was; with Synced it is safe at once.
func (w *workload) acknowledged(note func(*promise)) {
	w.promised(func() {
		note(&w.done)
		if w.options.Synced {
			note(&w.safe)
		}
	})
}

// append writes a record that stands for n denials.
func (w *workload) append(s *stream.Writer, n uint64) {
	var mark uint64
	w.promised(func() { w.next++; mark = w.next; w.settled[mark] = n })
	event := &audit.Event{Time: time.Unix(1_800_000_000, int64(mark)), Kind: audit.KindOOM, OOM: &audit.OOM{Count: mark, MemoryLimit: mark}}
	if err := s.AppendFolded(event, n); err != nil {
		w.t.Error(err)
	}
	w.acknowledged(func(p *promise) { p.records = append(p.records, mark) })
}

func (w *workload) fold(s *stream.Writer, n uint64) {
	if err := s.Fold(n); err != nil {
		w.t.Error(err)
	}
	w.acknowledged(func(p *promise) { p.folded += n })
}

// flush flushes, as the writer does every interval: what was acknowledged before is safe then.
func (w *workload) flush(s *stream.Writer) {
	var before promise
	w.promised(func() { before = w.done; before.records = slices.Clone(before.records) })
	if err := s.Sync(); err != nil {
		w.t.Error(err)
	}
	w.promised(func() {
		if len(before.records) > len(w.safe.records) {
			w.safe.records = before.records
		}
		w.safe.folded = max(w.safe.folded, before.folded)
	})
}

func (w *workload) close(s *stream.Writer) {
	w.promised(func() { w.safe.open = false })
	if err := s.Close(); err != nil {
		w.t.Error(err)
	}
	w.promised(func() {
		w.safe.records, w.safe.folded, w.safe.closed = slices.Clone(w.done.records), w.done.folded, true
	})
}

// check has the node boot anew after the failure, and the next writer come.
func (w *workload) check(f *failure, keys signature.Ring) error {
	root, err := os.MkdirTemp("", "failed")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for path, data := range f.tree {
		if path = filepath.Join(root, path); data == nil {
			err = os.MkdirAll(path, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	if f.ordered {
		if err := faults(root, keys, verify.Fault); err != nil {
			return fmt.Errorf("before the next writer comes, %w", err)
		}
	}
	s, err := stream.OpenWriter(stream.Dir(root, id), id, w.options)
	if err != nil {
		return err
	}
	found, seq := s.Recovered(), s.Seq()
	if !found.IsZero() {
		err = s.Report(audit.LossShim, "killed")
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if err := faults(root, keys, verify.Fault, verify.Unjudged); err != nil {
		return err
	}
	return w.judge(f, found, seq, stream.Dir(root, id))
}

// judge holds what is there against what was promised.
func (w *workload) judge(f *failure, found stream.Recovered, seq uint64, dir string) error {
	records, loss, err := read(dir)
	if err != nil {
		return err
	}
	counted, last := found.Folded, time.Time{}
	for mark := range records {
		counted += w.settled[mark]
	}
	if n := len(records); uint64(n) != seq {
		return fmt.Errorf("%d records, and the writer went on behind %d", n, seq)
	}
	for _, mark := range f.records {
		if _, there := records[mark]; !there {
			return fmt.Errorf("record %d is missing, of %d that must be there; %+v", mark, len(f.records), found)
		}
	}
	if counted < f.folded {
		return fmt.Errorf("%d denials are counted, and %d must be", counted, f.folded)
	}
	for _, r := range records {
		if r.Seq == seq {
			last = r.Event.Time
		}
	}
	down, lag := !found.Outage.Until.IsZero(), w.options.FlushInterval
	if w.options.Synced {
		lag = 0
	}
	switch {
	case found.Missing > 0:
		return fmt.Errorf("records are missing that were signed for: %+v", found)
	case f.open && !down, f.closed && down:
		return fmt.Errorf("outage found: %v; a writer had the stream: %v", down, f.open)
	case !down:
		return nil
	case loss == nil || loss.Reason != audit.LossNode || !loss.From.Equal(last) || !loss.Until.Equal(found.Outage.Until) || loss.FlushInterval != lag:
		return fmt.Errorf("the loss is %+v, and the last record was of %s", loss, last)
	}
	return nil
}

// read returns the workload's records by their marks, and the loss behind them.
func read(dir string) (map[uint64]*record.Record, *audit.Loss, error) {
	if _, err := segment.CheckChain(dir); err != nil {
		return nil, nil, err
	}
	r, err := segment.OpenReader(dir, 0)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	records, loss := map[uint64]*record.Record{}, (*audit.Loss)(nil)
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			return records, loss, nil
		}
		if err != nil {
			return nil, nil, err
		}
		one, err := record.ParseStrict(line)
		if err != nil {
			return nil, nil, err
		}
		if one.Event.Loss != nil {
			loss = one.Event.Loss
			continue
		}
		records[one.Event.OOM.Count] = one
	}
}

// faults verifies all streams, and returns the first finding of one of the severities.
func faults(root string, keys signature.Ring, grave ...verify.Severity) error {
	var all []verify.Finding
	ledger, err := verify.Node(root, keys, func(stream.Stream) bool { return true }, func(s *verify.Stream) error {
		all = append(all, s.Findings...)
		return nil
	})
	if err != nil {
		return err
	}
	for _, x := range append(all, ledger.Findings...) {
		if slices.Contains(grave, x.Severity) {
			return fmt.Errorf("verification finds %+v", x)
		}
	}
	return nil
}

// checkAll checks the failures, on all processors.
func (w *workload) checkAll(list []failure, keys signature.Ring) {
	work := make(chan *failure)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for f := range work {
				if err := w.check(f, keys); err != nil {
					w.t.Errorf("%s: %v", f.what, err)
				}
			}
		})
	}
	for i := range list {
		work <- &list[i]
	}
	close(work)
	all.Wait()
}
