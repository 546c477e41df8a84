// SPDX-License-Identifier: Apache-2.0

package seekable

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Compress writes what r has to w, compressed, and returns how many bytes it has read. It takes a few megabytes of memory.
func Compress(w io.Writer, r io.Reader) (read int64, err error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true),
		zstd.WithWindowSize(FrameBytes))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, encoder.Close()) }()
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	var sizes []uint32
	plain, packed := make([]byte, FrameBytes), make([]byte, 0, maxFrame)
	for {
		n, err := io.ReadFull(r, plain)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return read, err
		}
		if n == 0 {
			break
		}
		if read += int64(n); read > MaxBytes {
			return read, malformed("more than %d bytes of content", int64(MaxBytes))
		}
		packed = encoder.EncodeAll(plain[:n], packed[:0])
		if _, err := both.Write(packed); err != nil {
			return read, err
		}
		sizes = append(sizes, uint32(len(packed)))
	}
	end := binary.LittleEndian.AppendUint32(nil, digestMagic)
	end = binary.LittleEndian.AppendUint32(end, sha256.Size)
	end = sum.Sum(end)
	_, err = w.Write(appendTable(end, sizes, read))
	return read, err
}
