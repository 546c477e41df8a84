// SPDX-License-Identifier: Apache-2.0

package seekable

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// decoder is used by all Readers: its methods that they use are safe for that.
var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(FrameBytes), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
})

// Reader reads the content of a compressed file at any place. It keeps one frame. Not safe for concurrent use.
type Reader struct {
	file    io.ReaderAt
	offsets []int64 // of the frames; the last one is of the digest
	content int64
	frame   int    // that plain is of; -1: none
	plain   []byte // FrameBytes at most
	packed  []byte
}

// NewReader reads the seek table of a file of so many bytes. The error wraps ErrForm if it has none, or is the file's.
func NewReader(file io.ReaderAt, size int64) (*Reader, error) {
	offsets, content, err := readTable(file, size)
	if err != nil {
		return nil, err
	}
	return &Reader{file: file, offsets: offsets, content: content, frame: -1}, nil
}

// Size is the size of the content, in bytes, as the seek table says.
func (r *Reader) Size() int64 { return r.content }

// ReadAt implements io.ReaderAt for the content.
func (r *Reader) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, errors.New("seekable: a negative offset")
	}
	for n < len(p) && offset < r.content {
		if err := r.load(int(offset / FrameBytes)); err != nil {
			return n, err
		}
		copied := copy(p[n:], r.plain[offset%FrameBytes:])
		n, offset = n+copied, offset+int64(copied)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// load decompresses a frame.
func (r *Reader) load(frame int) error {
	if frame == r.frame {
		return nil
	}
	d, err := decoder()
	if err != nil {
		return err
	}
	size := min(r.content-int64(frame)*FrameBytes, FrameBytes)
	packed := int(r.offsets[frame+1] - r.offsets[frame])
	if cap(r.packed) < packed {
		r.packed = make([]byte, packed, min(maxFrame, 2*packed))
	}
	if int64(cap(r.plain)) < size {
		r.plain = make([]byte, 0, size)
	}
	r.frame, r.packed = -1, r.packed[:packed]
	if _, err := r.file.ReadAt(r.packed, r.offsets[frame]); err != nil {
		return err
	}
	var head zstd.Header
	if err := head.Decode(r.packed); err != nil {
		return malformed("frame %d: %v", frame+1, err)
	}
	if head.Skippable || !head.HasFCS || int64(head.FrameContentSize) != size || !head.HasCheckSum || head.DictionaryID != 0 {
		return malformed("frame %d is not of %d bytes with a checksum", frame+1, size)
	}
	plain, err := d.DecodeAll(r.packed, r.plain[:0:size])
	if err != nil {
		return malformed("frame %d: %v", frame+1, err)
	}
	if int64(len(plain)) != size {
		return malformed("frame %d has %d bytes, not %d", frame+1, len(plain), size)
	}
	r.frame, r.plain = frame, plain
	return nil
}

// Check reads the whole file and compares it with its digest. The error wraps ErrForm if it is not as Compress has written it. That
// says nothing about whose content it is.
func (r *Reader) Check() error {
	end := r.offsets[len(r.offsets)-1]
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r.file, 0, end)); err != nil {
		return fmt.Errorf("compare with the digest: %w", err)
	}
	var digest [digestBytes]byte
	if _, err := r.file.ReadAt(digest[:], end); err != nil {
		return err
	}
	want := binary.LittleEndian.AppendUint32(nil, digestMagic)
	want = binary.LittleEndian.AppendUint32(want, sha256.Size)
	if !bytes.Equal(digest[:], sum.Sum(want)) {
		return malformed("its bytes are not those of its digest")
	}
	return nil
}
