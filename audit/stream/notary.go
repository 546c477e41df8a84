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

// ledgerWait is how long opening a stream waits for the ledger, which other processes have for microseconds, and closing.
const ledgerWait = 100 * time.Millisecond

// notary signs one stream while a Writer has it: the manifest, the head, and the node's ledger. It works beside the Writer: no call that
// is audited waits for it. Where the two are locked together, the notary's lock comes first.
//
// What it signs is on the disk before, so that a node that dies does not look like somebody who took away what was signed: records before
// a head names them, a line of the manifest before a head or the ledger names it, a line of the ledger before a head does. And a head that
// names the manifest's last line is there before the next line is.
//
// A stream that cannot be signed is not opened. Once it is open, nothing of what is signed stops the workload: what could not be written
// is tried again with the next head, in the same order, so a gap is late but never skipped.
type notary struct {
	writer *Writer
	key    *signature.Key
	root   string // of the streams
	stream string // the directory below it

	mu       sync.Mutex
	manifest *os.File // guarded by mu, as all below
	journal  *journal.Journal
	head     *os.File
	number   uint64 // of the newest head
	resumed  bool   // there is a manifest
	id       string
	boot     string         // of the kernel
	was      manifest.State // what the writer before has left
	listed   int
	before   *manifest.Point // what the head told of before, or the manifest's last line if that is more; nil: nothing
	broken   bool            // not all that was signed before could be read
	behind   bool            // the head does not name the manifest's last line
	waiting  []complete      // segments that have no line yet
	untold   *ledger.Entry   // what the ledger was not told yet
	told     uint64          // line of the ledger that was written last
	kept     uint64          // of those lines, the last one that is on the disk
	closed   bool
	unsynced bool // the manifest's last line may not be on the disk
	headSeen bool // the newest head may not be on the disk
}

// complete is a segment to which nothing is added any more, as its writer knows it.
type complete struct {
	file   *os.File
	number int
	last   uint64 // 0: the writer was another one, so it is read
	after  string
	bytes  int64
}

// openNotary opens manifest and head of the stream in dir. A Writer is to be put in.
func openNotary(dir *os.File, key *signature.Key, boot string) (_ *notary, err error) {
	pod, root := filepath.Dir(dir.Name()), filepath.Dir(filepath.Dir(dir.Name()))
	n := &notary{key: key, root: root, stream: filepath.Base(pod) + "/" + filepath.Base(dir.Name()), boot: boot}
	defer func() {
		if err != nil {
			_ = n.closeFiles()
		}
	}()
	if n.manifest, err = openAt(dir, manifest.Name, os.O_RDWR|os.O_APPEND|os.O_CREATE); err != nil {
		return nil, err
	}
	if n.journal, err = journal.Open(n.manifest, manifest.Context); err != nil {
		return nil, err
	}
	if n.was, n.resumed = manifest.Resume(n.journal.Last()); n.resumed {
		n.id, n.listed = n.was.ID, n.was.Listed
	} else {
		n.id = manifest.NewID()
	}
	if n.head, err = openAt(dir, manifest.HeadName, os.O_RDWR|os.O_CREATE); err != nil {
		return nil, err
	}
	return n, n.readBefore()
}

// outage tells whether the node went down while a writer had the stream.
func (n *notary) outage() bool { return n.was.Open && n.was.Boot != "" && n.was.Boot != n.boot }

// readBefore takes over what the writer before has signed: with the head, or with the manifest's last line if that is more.
func (n *notary) readBefore() error {
	if err := n.readHead(); err != nil {
		return err
	}
	if at := n.was.At; n.resumed && at.Segment > 0 && (n.before == nil || n.before.Seq < at.Seq) {
		n.before = &at
	}
	return nil
}

func (n *notary) readHead() error {
	info, err := n.head.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 { // killed before its first head, the writer before has one line
		n.broken, n.behind = n.journal.Line() > 1, n.resumed
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
	n.broken = n.broken || !n.resumed || n.before == nil
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
	if !n.resumed {
		n.listed = t.number - 1 // what is older than the manifest is bound by the chain
	}
	n.unsynced, n.headSeen = n.journal.Line() > 0, n.number > 0 // of the writer before
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
	n.writer.report(nil, n.tell())
	return nil
}

// settle does what is to be done, and what could not be done before.
func (n *notary) settle() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	at, list := n.writer.signing()
	n.waiting = append(n.waiting, list...)
	return errors.Join(n.list(at), n.tell(), n.keep(), n.writeHead(at))
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

// append adds a line to the manifest, and brings it to the disk.
func (n *notary) append(e *manifest.Entry) error {
	if err := n.syncHead(); err != nil {
		return err
	}
	e.ID, e.Listed, e.Boot, e.FlushInterval = n.id, n.listed, n.boot, n.writer.lag()
	if err := n.journal.Append(n.key, e); err != nil {
		return err
	}
	n.writer.did("manifest")
	n.unsynced = true
	return nil
}

// syncManifest brings the manifest to the disk.
func (n *notary) syncManifest() error {
	if !n.unsynced {
		return nil
	}
	if err := n.writer.syncFile(n.manifest); err != nil {
		return err
	}
	n.unsynced = false
	n.writer.did("manifest synced")
	return nil
}

func (n *notary) syncHead() error {
	if !n.headSeen {
		return nil
	}
	if err := n.writer.syncFile(n.head); err != nil {
		return err
	}
	n.headSeen = false
	n.writer.did("head synced")
	return nil
}

// writeHead signs how far the stream is. Where that is must be on the disk.
func (n *notary) writeHead(at manifest.Point) error {
	if err := n.syncManifest(); err != nil {
		return err
	}
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
	n.headSeen = true
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
	if err := n.syncManifest(); err != nil {
		return err
	}
	line, err := ledger.Append(n.root, n.key, n.untold, ledgerWait)
	if err != nil {
		return err
	}
	n.untold, n.told = nil, line
	n.writer.did("ledger")
	return nil
}

// keep brings to the disk what the ledger says of the stream. A head names lines of the ledger only when they are there to stay.
func (n *notary) keep() error {
	if n.kept == n.told {
		return nil
	}
	if err := ledger.Sync(n.root); err != nil {
		return err
	}
	n.kept = n.told
	return nil
}

// close writes that the Writer has left the stream at a place, which is on the disk if all is. Whatever it cannot write, the next
// Writer's line will say what it finds.
func (n *notary) close(at manifest.Point, end bool, folded uint64, all bool) error {
	_, list := n.writer.signing()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.waiting = append(n.waiting, list...)
	err := n.list(at)
	closed := err == nil && all // a stream that is closed has a line for each segment
	if closed {
		err = n.append(&manifest.Entry{Kind: manifest.Close, Close: &manifest.Closing{At: at, End: end, Folded: folded}})
		closed = err == nil
	}
	err = errors.Join(err, n.writeHead(at), n.syncHead(), n.tell())
	if closed && n.untold == nil {
		n.untold = n.ledgerLine(ledger.End, at)
		n.untold.Ended = end
		err = errors.Join(err, n.tell())
	}
	if err = errors.Join(err, n.keep(), n.writeHead(at), n.syncHead(), n.closeFiles()); err != nil {
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
