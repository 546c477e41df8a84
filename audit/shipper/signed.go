// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/internal/fsys"
)

// headEvery is how often the head of a stream that goes on is sent. So long has whoever owns the node to change unseen what was not shipped yet.
const headEvery = 5 * time.Second

// head adds the newest head of a stream to the batch, if the sink does not have it.
func (s *source) head(c *cursor, b *batch, now time.Time) {
	if !c.headDue || c.identity == nil || b.form == config.FormOCSF || now.Sub(c.headSeen) < headEvery && !now.Before(c.headSeen) {
		return
	}
	c.headSeen = now
	h, object := newestHead(filepath.Join(s.root, c.next.Stream, manifest.HeadName))
	if h == nil || !isInert(object) { // it is not signed, or damaged: whoever verifies the stream says so
		c.headDue = false
		return
	}
	if h.Number > c.next.Head || h.ID != c.next.ID {
		b.addSigned(sink.KindHead, c.next.Stream, c.identity, h.Time, object)
		c.next.Head = h.Number
	}
	c.headDue = h.At.Seq < c.next.Seq
}

// newestHead returns the newest head in a file, and the object that was signed. Its signature is for the consumer to check: the shipper has no key.
func newestHead(path string) (*manifest.Head, []byte) {
	file, err := fsys.OpenRegular(path)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	data := make([]byte, 2*manifest.HeadSlot)
	n, err := file.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil
	}
	data = data[:n]
	heads, _ := manifest.ReadHeads(bytes.NewReader(data), nil)
	newest := manifest.Newest(heads)
	for i, h := range heads {
		if h != nil && h == newest {
			return h, bytes.TrimRight(data[i*manifest.HeadSlot:][:manifest.HeadSlot-1], " ")
		}
	}
	return nil, nil
}

// isInert tells whether what is on a line is text, without anything that ends it or acts on whoever shows it.
func isInert(line []byte) bool {
	for _, b := range line {
		if b < ' ' {
			return false
		}
	}
	return utf8.Valid(line)
}

// ledgerCursor is how far one sink is with the node's ledger. Its mark's At.Offset is where the next line begins.
type ledgerCursor struct {
	node            *audit.Identity // only its name
	confirmed, next checkpoint.Mark
	checked         bool // the line at next was found to follow from the one before it
}

func newLedgerCursor(node string, from checkpoint.Mark) *ledgerCursor {
	from.Stream = ledger.Name
	return &ledgerCursor{node: &audit.Identity{Node: node}, confirmed: from, next: from}
}

func (c *ledgerCursor) confirm() { c.confirmed = c.next }
func (c *ledgerCursor) forget()  { c.next, c.checked = c.confirmed, false }

// read adds lines of the ledger, which has so many bytes, to the batch. One that is shorter than it was, or does not go on from the last line, is
// another one, and is read from its beginning. It reports whether it has come to the end, or nothing more fits.
func (c *ledgerCursor) read(root string, size int64, b *batch) (ended bool, err error) {
	if size < c.next.At.Offset {
		c.again()
	}
	if size <= c.next.At.Offset {
		return true, nil
	}
	file, err := fsys.OpenRegular(filepath.Join(root, ledger.Name))
	if err != nil {
		return true, err
	}
	defer file.Close()
	buf := make([]byte, min(size-c.next.At.Offset, 4*journal.MaxLine))
	n, err := file.ReadAt(buf, c.next.At.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return true, err
	}
	whole := false
	for line := range bytes.Lines(buf[:n]) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if !b.fits(len(line)) {
			return true, nil // for this batch
		}
		whole = true
		if again := c.take(line, b); again {
			return false, nil
		}
	}
	if !whole && n == cap(buf) && n >= journal.MaxLine { // no line is as long
		b.damages++
		c.next.At.Offset += int64(n)
		whole = true
	}
	return !whole || c.next.At.Offset >= size, nil
}

func (c *ledgerCursor) again() { c.next = checkpoint.Mark{Stream: ledger.Name} }

// take adds a line to the batch. It reports whether the cursor was moved back instead.
func (c *ledgerCursor) take(line []byte, b *batch) (again bool) {
	var p journal.Place
	object := bytes.TrimSuffix(line, []byte("\n"))
	switch err := json.Unmarshal(object, &p); {
	case err != nil || p.Line == 0 || !isInert(object):
		b.damages++ // the line behind it names its hash, so the consumer finds that it is missing
	case c.next.Chain != "" && p.Previous != c.next.Chain && !c.checked:
		c.again()
		return true
	default:
		b.addSigned(sink.KindLedger, "", c.node, p.Time, object)
		c.next.Seq = p.Line
	}
	c.checked = true
	sum := sha256.Sum256(line)
	c.next.Chain = hex.EncodeToString(sum[:])
	c.next.At.Offset += int64(len(line))
	return false
}
