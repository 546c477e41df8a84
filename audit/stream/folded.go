// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// folded is a small file of five 64-bit little-endian counters beside the segments. It holds how many
// denials were answered but are not in a record yet, so that the process that cleans up after a killed
// one still knows their number. The write(2) of so few bytes is whole or absent when the process dies. (A
// mapping would be cheaper, but a full disk would then be a fatal signal instead of an error.)
//
//	0   outstanding: folded and not in a record that is on the disk
//	8   settling: how many of them the record being written stands for
//	16  the number of that record
//	24  settled: how many of them records stand for that are written, and not known to be on the disk
//	32  the number of the last of these records
//
// A crash between a record and the counters neither loses nor doubles any: if the stream has a record that is named here, what it stands
// for is settled. When the node dies, the file may be older or newer than the records. It is synced before they are, and what they stand
// for is subtracted when they are on the disk: so none is lost, but those may count twice whose record came to the disk by itself.
type folded struct {
	file                       *os.File
	outstanding, settling, seq uint64
	settled, last              uint64
	flushing                   uint64 // of settled, how many the flush that is under way covers
	stale                      bool   // the file must be written before the next record
	unsynced                   bool   // the file was written since the last flush
	buf                        [foldedSize]byte
}

// foldedSize is the file's, in bytes.
const foldedSize = 40

// CountersSize is the size of the file of counters, in bytes. An earlier version, which did not tell of boots in the manifest either, had
// the first three.
func CountersSize(tellsBoots bool) int {
	if !tellsBoots {
		return 24
	}
	return foldedSize
}

// openFolded opens or makes the file. last is the number of the stream's last record.
func openFolded(dir *os.File, last uint64) (*folded, error) {
	file, err := openAt(dir, foldedName, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	f := &folded{file: file}
	// A shorter file is a new one, one of an earlier version, or one that a power failure emptied: zeros then.
	if _, err := file.ReadAt(f.buf[:], 0); err != nil && !errors.Is(err, io.EOF) {
		file.Close()
		return nil, err
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(f.buf[8*i:]) }
	f.outstanding = at(0)
	for _, i := range []int{1, 3} {
		if n := at(i); n > 0 && at(i+1) <= last {
			f.outstanding -= min(n, f.outstanding)
		}
	}
	if err := f.store(); err != nil { // also reserves the block, so that later stores need no space
		file.Close()
		return nil, err
	}
	return f, nil
}

// unsettled is how many denials are in no record.
func (f *folded) unsettled() uint64 { return f.outstanding - f.settled }

func (f *folded) store() error {
	for i, n := range [...]uint64{f.outstanding, f.settling, f.seq, f.settled, f.last} {
		binary.LittleEndian.PutUint64(f.buf[8*i:], n)
	}
	_, err := f.file.WriteAt(f.buf[:], 0)
	f.stale = err != nil
	if err != nil {
		return writeError("write", f.file.Name(), err)
	}
	f.unsynced = true
	return nil
}

func (f *folded) add(n uint64) error {
	f.outstanding += n
	err := f.store()
	if err != nil {
		f.outstanding -= n
	}
	return err
}

// begin announces that record seq stands for n of the outstanding. n may be 0.
func (f *folded) begin(n, seq uint64) error {
	if n == 0 && !f.stale {
		return nil
	}
	f.settling, f.seq = min(n, f.unsettled()), seq
	if n == 0 {
		f.seq = 0
	}
	err := f.store()
	if err != nil {
		f.settling, f.seq = 0, 0
	}
	return err
}

// end says whether that record was written. An error needs no report: until the file is written again, it
// says with the record's number what happened, and no record is written before that.
func (f *folded) end(written bool) {
	if f.settling == 0 {
		return
	}
	if written {
		f.settled, f.last = f.settled+f.settling, f.seq
	}
	f.settling, f.seq = 0, 0
	_ = f.store()
}

// beginFlush returns the file if it is to be synced.
func (f *folded) beginFlush() (*os.File, error) {
	f.flushing = f.settled
	if f.stale {
		if err := f.store(); err != nil {
			return nil, err
		}
	}
	if !f.unsynced {
		return nil, nil
	}
	f.unsynced = false
	return f.file, nil
}

// endFlush says whether the file, and the records that were written before the flush, are on the disk. The subtraction of what these
// stand for is for the next flush to sync: until then the file says the same.
func (f *folded) endFlush(done bool) {
	if !done {
		f.stale, f.unsynced = true, true // to be written again before it is synced again
		return
	}
	if f.flushing == 0 {
		return
	}
	f.outstanding, f.settled = f.outstanding-f.flushing, f.settled-f.flushing
	if f.settled == 0 {
		f.last = 0
	}
	was := f.unsynced
	_ = f.store()
	f.unsynced = was
}

// cut says that the records which are not on the disk were taken back.
func (f *folded) cut() {
	if f.settled > 0 {
		f.settled, f.last = 0, 0
		_ = f.store()
	}
}

// close syncs the file and lets go of it. Its error is that of counters that could not be written before, or are not on the disk.
func (f *folded) close(sync func(*os.File) error) error {
	err := f.store()
	if err == nil {
		if err = sync(f.file); err != nil {
			err = writeError("sync", f.file.Name(), err)
		}
	}
	return errors.Join(err, f.file.Close())
}
