// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// folded is a small file of three 64-bit little-endian counters beside the segments. It holds how many
// denials were answered but are not in a record yet, so that the process that cleans up after a killed
// one still knows their number. The write(2) of so few bytes is whole or absent when the process dies. (A
// mapping would be cheaper, but a full disk would then be a fatal signal instead of an error.)
//
//	0   outstanding: folded and not in a record
//	8   settling: how many of them the record being written stands for
//	16  the number of that record
//
// With the last two, a crash between the record and the counter neither loses nor doubles any: if the
// stream has that record, what was settling is settled.
type folded struct {
	file                       *os.File
	outstanding, settling, seq uint64
	stale                      bool // the file must be written before the next record
	buf                        [24]byte
}

// openFolded opens or makes the file. last is the number of the stream's last record.
func openFolded(dir *os.File, last uint64) (*folded, error) {
	file, err := openAt(dir, foldedName, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	f := &folded{file: file}
	// A shorter file is a new one, or one that a power failure emptied: zeros then.
	if _, err := file.ReadAt(f.buf[:], 0); err != nil && !errors.Is(err, io.EOF) {
		file.Close()
		return nil, err
	}
	f.outstanding = binary.LittleEndian.Uint64(f.buf[0:])
	f.settling = binary.LittleEndian.Uint64(f.buf[8:])
	f.seq = binary.LittleEndian.Uint64(f.buf[16:])
	if f.settling > 0 && f.seq <= last {
		f.outstanding -= min(f.settling, f.outstanding)
	}
	f.settling, f.seq = 0, 0
	if err := f.store(); err != nil { // also reserves the block, so that later stores need no space
		file.Close()
		return nil, err
	}
	return f, nil
}

func (f *folded) store() error {
	binary.LittleEndian.PutUint64(f.buf[0:], f.outstanding)
	binary.LittleEndian.PutUint64(f.buf[8:], f.settling)
	binary.LittleEndian.PutUint64(f.buf[16:], f.seq)
	_, err := f.file.WriteAt(f.buf[:], 0)
	f.stale = err != nil
	if err != nil {
		return writeError("write", f.file.Name(), err)
	}
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
	f.settling, f.seq = min(n, f.outstanding), seq
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
		f.outstanding -= f.settling
	}
	f.settling, f.seq = 0, 0
	_ = f.store()
}

// close lets go of the file. Its error is that of a counter that could not be written before.
func (f *folded) close() error {
	var err error
	if f.stale {
		err = f.store()
	}
	return errors.Join(err, f.file.Close())
}
