// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
)

const (
	// signEvery is how long a record is without a signature over it, at most, while its Writer gets to run.
	signEvery = time.Second
	// ledgerWait is how long opening a stream waits for the ledger, which other processes have for microseconds, and closing.
	ledgerWait = 100 * time.Millisecond
)

// notary signs one stream while a Writer has it: the manifest, the head, and the node's ledger. It works beside the Writer: no call that
// is audited waits for it. Where the two are locked together, the notary's lock comes first.
//
// A stream that cannot be signed is not opened. Once it is open, nothing of what is signed stops the workload: what could not be written
// is tried again with the next head, in the same order, so a gap is late but never skipped.
type notary struct {
	writer  *Writer
	key     *signature.Key
	root    string // of the streams
	stream  string // the directory below it
	problem func(error)

	mu       sync.Mutex
	timer    *time.Timer
	manifest *os.File // guarded by mu, as all below
	journal  *journal.Journal
	head     *os.File
	number   uint64 // of the newest head
	id       string
	listed   int
	before   *manifest.Point // what the head told of before; nil: nothing
	broken   bool            // not all that was signed before could be read
	behind   bool            // the head does not name the manifest's last line
	waiting  []complete      // segments that have no line yet
	untold   *ledger.Entry   // what the ledger was not told yet
	told     uint64          // line of the ledger that was written last
	kept     uint64          // of those lines, the last one that is on the disk
	closed   bool
	failing  bool // the problem was told
}

// complete is a segment to which nothing is added any more, as its writer knows it.
type complete struct {
	file   *os.File
	number int
	last   uint64 // 0: the writer was another one, so it is read
	after  string
	bytes  int64
}

// openNotary opens manifest and head of the stream whose end is t.
func openNotary(w *Writer, t *tail, o Options) (_ *notary, err error) {
	dir := w.dir.Name()
	n := &notary{
		writer: w, key: o.Key, root: filepath.Dir(filepath.Dir(dir)), problem: o.Problem,
		stream: filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir),
	}
	defer func() {
		if err != nil {
			_ = n.closeFiles()
		}
	}()
	if n.manifest, err = openAt(w.dir, manifest.Name, os.O_RDWR|os.O_APPEND|os.O_CREATE); err != nil {
		return nil, err
	}
	if n.journal, err = journal.Open(n.manifest, manifest.Context); err != nil {
		return nil, err
	}
	var resumed bool
	if n.id, n.listed, resumed = manifest.Resume(n.journal.Last()); !resumed {
		n.id, n.listed = manifest.NewID(), t.number-1 // what is older than the manifest is bound by the chain
	}
	if n.head, err = openAt(w.dir, manifest.HeadName, os.O_RDWR|os.O_CREATE); err != nil {
		return nil, err
	}
	return n, n.readHead(resumed)
}

// readHead takes over what the head of the writer before told of.
func (n *notary) readHead(resumed bool) error {
	info, err := n.head.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 { // killed before its first head, the writer before has one line
		n.broken = n.journal.Line() > 1
		return nil
	}
	heads, errs := manifest.ReadHeads(n.head, signature.Ring{n.key.Public})
	for _, err := range errs {
		var other *signature.UnknownKeyError // the node's key was changed
		n.broken = n.broken || err != nil && !errors.As(err, &other)
	}
	if newest := manifest.Newest(heads); newest != nil {
		n.number, n.behind = newest.Number, newest.Lines < n.journal.Line()
		if newest.ID == n.id {
			n.before = &newest.At
		}
	}
	n.broken = n.broken || !resumed || n.before == nil
	return nil
}

// missing is by how many records the head was ahead of the stream, which ends with record seq.
func (n *notary) missing(seq uint64) uint64 {
	if n.before == nil {
		return 0
	}
	return n.before.Seq - min(n.before.Seq, seq)
}

// begin writes that the Writer goes on at t. After an error it must not.
func (n *notary) begin(t *tail, id audit.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := manifest.Point{Seq: t.seq, Chain: t.chain, Segment: t.number, Offset: t.size}
	if n.behind && n.missing(t.seq) == 0 {
		if err := n.writeHead(at); err != nil {
			return err
		}
	}
	if err := n.append(&manifest.Entry{Kind: manifest.Begin, Begin: &manifest.Beginning{
		Stream: n.stream, Node: id.Node, ContainerID: id.ContainerID, At: at, Cut: t.cut, Head: n.before, Broken: n.broken,
	}}); err != nil {
		return err
	}
	n.untold = n.ledgerLine(ledger.Begin, at)
	if err := n.writeHead(at); err != nil {
		return err
	}
	n.report(n.tell())
	n.timer = time.AfterFunc(signEvery, n.tick)
	return nil
}

// complete is told of a segment that is complete and synced.
func (n *notary) complete(c complete) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting = append(n.waiting, c)
	if !n.closed {
		n.settle()
	}
}

// tick signs what has come since the last head.
func (n *notary) tick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.settle()
	}
}

// settle does what is to be done, and what could not be done before. The caller holds n.mu.
func (n *notary) settle() {
	at := n.writer.signing()
	err := errors.Join(n.list(at), n.tell(), n.keep(), n.writeHead(at))
	n.report(err)
	if err != nil {
		n.timer.Reset(signEvery)
	}
}

// list writes the lines of complete segments, and a head after each: the manifest is never more than a line ahead.
func (n *notary) list(at manifest.Point) error {
	for len(n.waiting) > 0 {
		c, was := n.waiting[0], n.listed
		n.listed = max(n.listed, c.number)
		if err := n.append(&manifest.Entry{Kind: manifest.Segment, Segment: describe(n.writer.dir, c)}); err != nil {
			n.listed = was
			return err
		}
		n.waiting = n.waiting[1:]
		if err := n.writeHead(at); err != nil {
			return err
		}
	}
	return nil
}

func (n *notary) append(e *manifest.Entry) error {
	e.ID, e.Listed = n.id, n.listed
	if err := n.journal.Append(n.key, e); err != nil {
		return err
	}
	n.writer.did("manifest")
	return nil
}

// writeHead signs how far the stream is.
func (n *notary) writeHead(at manifest.Point) error {
	h := manifest.Head{
		Number: n.number + 1, Time: time.Now().UTC(), ID: n.id, At: at,
		Lines: n.journal.Line(), Last: n.journal.Hash(), Ledger: n.kept,
	}
	slot, offset, err := h.Slot(n.key)
	if err != nil {
		return err
	}
	if _, err := n.head.WriteAt(slot, offset); err != nil {
		return writeError("write", n.head.Name(), err)
	}
	n.number++
	n.writer.did("head")
	return nil
}

// ledgerLine is what the ledger is told of the manifest's last line.
func (n *notary) ledgerLine(kind ledger.Kind, at manifest.Point) *ledger.Entry {
	return &ledger.Entry{
		Kind: kind, ID: n.id, Stream: n.stream, Manifest: n.journal.Line(), Hash: n.journal.Hash(), Seq: at.Seq, Chain: at.Chain,
	}
}

// tell writes to the ledger what it was not told yet.
func (n *notary) tell() error {
	if n.untold == nil {
		return nil
	}
	line, err := ledger.Append(n.root, n.key, n.untold, ledgerWait)
	if err != nil {
		return err
	}
	n.untold, n.told = nil, line
	n.writer.did("ledger")
	return nil
}

// keep brings to the disk what the ledger says of the stream, and first the stream. A head names lines of the ledger only when they are
// there to stay.
func (n *notary) keep() error {
	if n.kept == n.told {
		return nil
	}
	if err := errors.Join(syncFile(n.manifest), syncFile(n.writer.dir), ledger.Sync(n.root)); err != nil {
		return err
	}
	n.kept = n.told
	return nil
}

// close writes that the Writer has left the stream. Whatever it cannot write, the next Writer's line will say what it finds.
func (n *notary) close(at manifest.Point, end bool, folded uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.timer.Stop()
	err := n.list(at)
	if err == nil { // a stream that is closed has a line for each segment
		err = n.append(&manifest.Entry{Kind: manifest.Close, Close: &manifest.Closing{At: at, End: end, Folded: folded}})
	}
	closed := err == nil
	err = errors.Join(err, n.writeHead(at), n.tell())
	if closed && n.untold == nil {
		n.untold = n.ledgerLine(ledger.End, at)
		n.untold.Ended = end
		err = errors.Join(err, n.tell())
	}
	if n.kept == n.told { // the ledger was told nothing; what is ours is kept all the same
		err = errors.Join(err, syncFile(n.manifest))
	}
	if err = errors.Join(err, n.keep(), n.writeHead(at), syncFile(n.head), n.closeFiles()); err != nil {
		return fmt.Errorf("sign %s: %w", n.stream, err)
	}
	return nil
}

func (n *notary) closeFiles() (err error) {
	for _, f := range []*os.File{n.manifest, n.head} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// report tells of a problem once, until there is none.
func (n *notary) report(err error) {
	if err != nil && !n.failing && n.problem != nil {
		n.problem(fmt.Errorf("audit stream %s cannot be signed at present; it is tried again: %w", n.stream, err))
	}
	n.failing = err != nil
}
