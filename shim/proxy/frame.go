// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The wire form of ttrpc (PROTOCOL.md of github.com/containerd/ttrpc): a header of ten bytes, big endian, and a body.
const (
	headerLen = 10
	// maxFrame is the largest body that ttrpc takes, in bytes.
	maxFrame = 4 << 20
	// keepBuffer is the largest body buffer that a connection keeps between frames, in bytes.
	keepBuffer = 16 << 10
)

type frameKind uint8

const (
	frameRequest  frameKind = 1
	frameResponse frameKind = 2
)

type header struct {
	length uint32 // of the body, in bytes
	stream uint32
	kind   frameKind
	flags  uint8
}

func parseHeader(b *[headerLen]byte) header {
	return header{
		length: binary.BigEndian.Uint32(b[0:4]),
		stream: binary.BigEndian.Uint32(b[4:8]),
		kind:   frameKind(b[8]),
		flags:  b[9],
	}
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b[0:4], h.length)
	binary.BigEndian.PutUint32(b[4:8], h.stream)
	b[8] = byte(h.kind)
	b[9] = h.flags
}

// errOversized says that a frame's body is longer than maxFrame. The body is still unread.
var errOversized = errors.New("ttrpc frame too long")

// frameReader reads whole frames into one buffer, which the next call overwrites.
type frameReader struct {
	r   io.Reader
	buf []byte // header and body
}

// next returns the next frame's header and its bytes, header included; they are valid until the next call. It
// returns io.EOF at the end between frames, io.ErrUnexpectedEOF within one, and errOversized with a valid header.
func (f *frameReader) next() (header, []byte, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return header{}, nil, err
	}
	h := parseHeader(&head)
	if h.length > maxFrame {
		return h, nil, errOversized
	}
	n := headerLen + int(h.length)
	if cap(f.buf) < n || (cap(f.buf) > keepBuffer && n <= keepBuffer) {
		f.buf = make([]byte, n)
	}
	frame := f.buf[:n]
	copy(frame, head[:])
	if _, err := io.ReadFull(f.r, frame[headerLen:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return header{}, nil, err
	}
	return h, frame, nil
}

// discard skips the body of a frame that next found oversized.
func (f *frameReader) discard(h header) error {
	if _, err := io.CopyN(io.Discard, f.r, int64(h.length)); err != nil {
		return fmt.Errorf("skip a ttrpc frame of %d bytes: %w", h.length, err)
	}
	return nil
}

// oversized is ttrpc's own answer to a frame that is too long.
func oversized(n int) *status.Status {
	return status.Newf(codes.ResourceExhausted, "message length %v exceed maximum message size of %v", n, maxFrame)
}

// appendFrame appends a frame to dst.
func appendFrame(dst []byte, stream uint32, kind frameKind, flags uint8, body []byte) []byte {
	var head [headerLen]byte
	header{length: uint32(len(body)), stream: stream, kind: kind, flags: flags}.put(head[:])
	return append(append(dst, head[:]...), body...)
}
