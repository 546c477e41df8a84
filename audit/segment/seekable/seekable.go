// SPDX-License-Identifier: Apache-2.0

// Package seekable keeps a file compressed so that any part of it can be read: in the seekable format of Zstandard (facebook/zstd,
// contrib/seekable_format, version 0.1.0). Any program that reads Zstandard (RFC 8878) reads such a file.
//
//	frame …      each of FrameBytes of the content, the last one of what is left; with its size and checksum
//	digest       a skippable frame: the SHA-256 of all bytes before it
//	seek table   a skippable frame: compressed and uncompressed size of each frame, the digest's included
//
// The digest finds bits that are no longer as they were written and that decompression takes no notice of. Whoever changes a file on
// purpose makes a new one: that the content is the right one is for others to prove.
//
// A Reader takes nothing of a file on trust: what it allocates is bounded, and one of more than MaxBytes of content is refused.
package seekable

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// FrameBytes is how much content a frame has.
	FrameBytes = 1 << 20
	// MaxBytes is the most content of a file that is read, in bytes.
	MaxBytes = 32 << 30
)

// Skippable frames begin with a magic number and the number of bytes that follow, both 32 bits, little-endian (RFC 8878, section 3.1.2).
const (
	digestMagic   = 0x184D2A50
	tableMagic    = 0x184D2A5E
	skippableHead = 8
	digestBytes   = skippableHead + sha256.Size

	entryBytes  = 8 // without checksums: a frame has one already
	footerBytes = 9
	footerMagic = 0x8F92EAB1

	// maxFrame bounds a frame's compressed size: content that cannot be compressed is stored, in blocks of 128 KiB with 3 bytes each.
	maxFrame = FrameBytes + FrameBytes/64 + 64
)

// ErrForm is wrapped by errors for a file that Compress has not written, or that was changed since.
var ErrForm = errors.New("not a compressed segment")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrForm, fmt.Sprintf(format, args...))
}

// appendTable appends the seek table of frames that have these sizes, of so much content together, and of the digest.
func appendTable(out []byte, frames []uint32, content int64) []byte {
	entries := len(frames) + 1
	out = binary.LittleEndian.AppendUint32(out, tableMagic)
	out = binary.LittleEndian.AppendUint32(out, uint32(entries*entryBytes+footerBytes))
	for _, size := range frames {
		n := min(content, FrameBytes)
		content -= n
		out = binary.LittleEndian.AppendUint32(out, size)
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
	}
	out = binary.LittleEndian.AppendUint32(out, digestBytes)
	out = binary.LittleEndian.AppendUint32(out, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(entries))
	out = append(out, 0) // descriptor: no checksums
	return binary.LittleEndian.AppendUint32(out, footerMagic)
}

// readTable reads the seek table at the end of a file of so many bytes. It returns where each frame begins, with where the digest does at
// the end, and the size of the content. There is one form for a table, so none of its bits can be changed unseen.
func readTable(r io.ReaderAt, size int64) (offsets []int64, content int64, err error) {
	var footer [footerBytes]byte
	if size < skippableHead+entryBytes+footerBytes+digestBytes {
		return nil, 0, malformed("it has %d bytes", size)
	}
	if _, err := r.ReadAt(footer[:], size-footerBytes); err != nil {
		return nil, 0, err
	}
	entries := int64(binary.LittleEndian.Uint32(footer[0:]))
	if footer[4] != 0 || binary.LittleEndian.Uint32(footer[5:]) != footerMagic {
		return nil, 0, malformed("it does not end in a seek table")
	}
	tableBytes := skippableHead + entries*entryBytes + footerBytes
	if entries < 1 || entries > MaxBytes/FrameBytes+1 || tableBytes+digestBytes > size {
		return nil, 0, malformed("a seek table of %d frames", entries)
	}
	table := make([]byte, tableBytes)
	if _, err := r.ReadAt(table, size-tableBytes); err != nil {
		return nil, 0, err
	}
	if binary.LittleEndian.Uint32(table) != tableMagic || int64(binary.LittleEndian.Uint32(table[4:])) != tableBytes-skippableHead {
		return nil, 0, malformed("the seek table has no head")
	}
	offsets = make([]int64, 1, entries)
	for i := range entries {
		entry := table[skippableHead+i*entryBytes:]
		packed, plain := int64(binary.LittleEndian.Uint32(entry)), int64(binary.LittleEndian.Uint32(entry[4:]))
		last := i == entries-1
		switch {
		case last && (packed != digestBytes || plain != 0),
			!last && (packed == 0 || packed > maxFrame || plain == 0 || plain > FrameBytes),
			i < entries-2 && plain != FrameBytes:
			return nil, 0, malformed("frame %d: %d bytes of %d", i+1, packed, plain)
		case !last:
			offsets = append(offsets, offsets[i]+packed)
			content += plain
		}
	}
	if offsets[entries-1]+digestBytes+tableBytes != size {
		return nil, 0, malformed("its frames have not as many bytes as the seek table says")
	}
	return offsets, content, nil
}
