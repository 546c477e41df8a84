// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// compressAll compresses the segments of a stream that can be, one after the other.
func (w *work) compressAll(ctx context.Context, s *subject) error {
	var plain []*part
	for i := range s.segments {
		p := &s.segments[i]
		if i == len(s.segments)-1 && w.now().Sub(p.mtime) < settled {
			break
		}
		if !p.Compressed() && p.size > block { // a smaller one takes no less
			plain = append(plain, p)
		}
	}
	if len(plain) == 0 {
		return nil
	}
	t, err := s.read(w.Keys)
	if err != nil {
		return err
	}
	complete, err := s.complete(w.Keys)
	if err != nil {
		return err
	}
	for _, p := range plain {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c := t.lines[p.Number]
		last := p.Number == s.segments[len(s.segments)-1].Number
		switch {
		case c != nil && len(complete) > 0 && p.Number <= complete[len(complete)-1].Number:
			err = w.compress(s, p, c.Bytes, c.SHA256, nil)
		case last && t.closed != nil && t.closed.At.Segment == p.Number:
			err = w.compress(s, p, t.closed.At.Offset, "", t)
		case !t.signed && s.ended(w.Round):
			err = w.compress(s, p, p.size, "", nil)
		default:
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ended tells whether a stream that is not signed is done with: its last record says so, and has been there for a while.
func (s *subject) ended(r *Round) bool {
	last := s.lastRecord()
	return last != nil && last.Event.Kind == audit.KindEnd && r.now().Sub(s.segments[len(s.segments)-1].mtime) >= settled
}

// compress puts a compressed segment in a plain one's place. It has so many bytes, and that SHA-256 if one is known. With closed, a writer
// might go on in it: it does not while the stream is locked, and the manifest's last line is still the same.
func (w *work) compress(s *subject, p *part, size int64, sum string, closed *told) error {
	if p.size != size {
		return otherSize(p, p.size, size)
	}
	action := Action{Kind: Compressed, Stream: s.name(), From: p.Number, To: p.Number, Before: p.bytes, After: p.bytes}
	if w.DryRun {
		w.did(action)
		return nil
	}
	packed := p.Path + stream.CompressedSuffix
	info, err := w.pack(p, packed+temporary, size, sum)
	if err != nil {
		if removeErr := os.Remove(packed + temporary); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return err
	}
	w.at("packed")
	if closed != nil || sum == "" {
		dir, err := stream.Lock(s.Path)
		if errors.Is(err, stream.ErrLocked) { // its container has been restarted
			return os.Remove(packed + temporary)
		}
		if err != nil {
			return err
		}
		defer func() { _ = stream.Unlock(dir) }()
		if now, err := os.Lstat(p.Path); err != nil || now.Size() != size || closed != nil && !isLast(s.Path, closed.hash) {
			return errors.Join(err, os.Remove(packed+temporary))
		}
	}
	if err := errors.Join(os.Rename(packed+temporary, packed), fsys.SyncDir(s.Path)); err != nil {
		return err
	}
	w.at("renamed")
	if err := os.Remove(p.Path); err != nil {
		return err
	}
	w.at("replaced")
	s.bytes += onDisk(info.Size()) - p.bytes
	p.Path, p.size, p.bytes = packed, info.Size(), onDisk(info.Size())
	action.After = p.bytes
	w.did(action)
	return nil
}

// pack writes a segment compressed to path, and reads it back.
func (w *work) pack(p *part, path string, size int64, sum string) (info os.FileInfo, err error) {
	from, err := fsys.OpenRegular(p.Path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	plain := sha256.New()
	n, err := seekable.Compress(to, io.TeeReader(io.LimitReader(from, size), plain))
	if err != nil {
		return nil, fmt.Errorf("compress %s: %w", p.Path, err)
	}
	if n != size || sum != "" && sum != hex.EncodeToString(plain.Sum(nil)) {
		return nil, changed(p)
	}
	// Its time is that of its last record, for those who look for records since a time.
	if err := errors.Join(os.Chtimes(path, p.mtime, p.mtime), to.Sync()); err != nil {
		return nil, err
	}
	if info, err = to.Stat(); err != nil {
		return nil, err
	}
	return info, readBack(to, info.Size(), plain.Sum(nil))
}

// readBack compares what was written with what was meant.
func readBack(file io.ReaderAt, size int64, sum []byte) error {
	r, err := seekable.NewReader(file, size)
	if err != nil {
		return err
	}
	got := sha256.New()
	if _, err := io.Copy(got, io.NewSectionReader(r, 0, r.Size())); err != nil {
		return err
	}
	if !bytes.Equal(got.Sum(nil), sum) {
		return errors.New("what was compressed reads back as something else")
	}
	return r.Check()
}

// isLast tells whether the last line of a manifest has this SHA-256.
func isLast(dir, hash string) bool {
	file, err := fsys.OpenRegular(filepath.Join(dir, manifest.Name))
	if err != nil {
		return false
	}
	defer file.Close()
	line, err := journal.LastLine(file)
	sum := sha256.Sum256(line)
	return err == nil && hex.EncodeToString(sum[:]) == hash && file.Sync() == nil
}
