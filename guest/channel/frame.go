// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"sync"
)

// Sizes of what surrounds a body.
const (
	HeaderSize = 8  // "MC", version, type, size of the body (uint32)
	MACSize    = 16 // of HMAC-SHA256, truncated
)

// keepBuffer is the size of a buffer that is kept from frame to frame.
const keepBuffer = 16 << 10

// maker makes the MACs of one direction.
type maker struct {
	h     hash.Hash
	place [9]byte // direction, number of the frame
	sum   [sha256.Size]byte
}

func newMaker(secret *[SecretSize]byte, d Direction) maker {
	return maker{h: hmac.New(sha256.New, secret[:]), place: [9]byte{byte(d)}}
}

// next returns the MAC of the next frame, which is valid until it is called again.
func (m *maker) next(frame []byte) []byte {
	m.h.Reset()
	m.h.Write(m.place[:])
	m.h.Write(frame)
	n := binary.LittleEndian.Uint64(m.place[1:])
	binary.LittleEndian.PutUint64(m.place[1:], n+1)
	return m.h.Sum(m.sum[:0])[:MACSize]
}

func (m *maker) first() bool { return binary.LittleEndian.Uint64(m.place[1:]) == 0 }

// inPlace says whether a type belongs to the direction, and there, if it is the host's: Start is the first and only the
// first.
func (m *maker) inPlace(k kind) bool {
	d, _, _ := k.bounds()
	return byte(d) == m.place[0] && (d == GuestToHost || (k == kindStart) == m.first())
}

// Sender sends the messages of one direction. It is safe for concurrent use.
type Sender struct {
	w io.Writer

	mu    sync.Mutex
	maker maker  // guarded by mu, as all below
	buf   []byte // the frame
	err   error  // of the last write; there is no next one
}

// NewSender returns a Sender whose first message is that of its direction: Start for HostToGuest.
func NewSender(w io.Writer, secret [SecretSize]byte, d Direction) *Sender {
	return &Sender{w: w, maker: newMaker(&secret, d)}
}

// Send sends a message with one Write and keeps nothing of it. It blocks as long as the Write does; other calls wait. A
// message that is out of bounds or not of this direction is refused with an Error and nothing is sent. After a failed
// Write the peer cannot follow any more, so all further calls return its error.
func (s *Sender) Send(m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	frame, err := s.encode(m)
	if err != nil {
		return err
	}
	_, s.err = s.w.Write(frame)
	return s.err
}

// encode makes the frame in s.buf.
func (s *Sender) encode(m Message) ([]byte, error) {
	k := m.kind()
	if !s.maker.inPlace(k) {
		return nil, ErrType
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	frame := m.append(append(s.buf[:0], 'M', 'C', Version, byte(k), 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)-HeaderSize))
	frame = append(frame, s.maker.next(frame)...)
	if cap(frame) <= keepBuffer {
		s.buf = frame[:0]
	}
	return frame, nil
}

// Receiver receives the messages of one direction. It is for one goroutine.
type Receiver struct {
	r     *bufio.Reader
	maker maker
	head  [HeaderSize]byte
	buf   []byte
	err   error // of the last Receive; there is no next message
}

// NewReceiver returns a Receiver for what a Sender of the same secret and direction sends. It reads ahead.
func NewReceiver(r io.Reader, secret [SecretSize]byte, d Direction) *Receiver {
	return &Receiver{r: bufio.NewReader(r), maker: newMaker(&secret, d)}
}

// Receive blocks until the next message is there. Errors: io.EOF between two frames; an Error for what is not the frame
// that the peer would send here, ErrTruncated for half of one; what the reader says. All are final. A message shares no
// memory with others. No more is allocated for a frame than its type may have.
func (r *Receiver) Receive() (Message, error) {
	if r.err != nil {
		return nil, r.err
	}
	m, err := r.receive()
	r.err = err
	return m, err
}

func (r *Receiver) receive() (Message, error) {
	k, frame, err := r.frame()
	if err != nil {
		return nil, err
	}
	return r.open(k, frame)
}

// ReceiveStart is the guest's first step: it reads Start, which brings the secret that its own MAC is made with, and
// returns the Receiver of what follows. Errors are those of Receive.
func ReceiveStart(in io.Reader) (Start, *Receiver, error) {
	r := NewReceiver(in, [SecretSize]byte{}, HostToGuest)
	k, frame, err := r.frame()
	if err != nil {
		return Start{}, nil, err
	}
	r.maker = newMaker((*[SecretSize]byte)(frame[HeaderSize:]), HostToGuest)
	m, err := r.open(k, frame)
	if err != nil {
		return Start{}, nil, err
	}
	return m.(Start), r, nil
}

// frame reads a frame whose header is in order. It is valid until the next call.
func (r *Receiver) frame() (kind, []byte, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return 0, nil, truncated(err)
	}
	if r.head[0] != 'M' || r.head[1] != 'C' {
		return 0, nil, ErrMagic
	}
	if r.head[2] != Version {
		return 0, nil, ErrVersion
	}
	k := kind(r.head[3])
	if !r.maker.inPlace(k) {
		return 0, nil, ErrType
	}
	_, least, most := k.bounds()
	size := binary.LittleEndian.Uint32(r.head[4:])
	if size < uint32(least) || size > uint32(most) {
		return 0, nil, ErrSize
	}
	frame := r.buffer(HeaderSize + int(size) + MACSize)
	copy(frame, r.head[:])
	if _, err := io.ReadFull(r.r, frame[HeaderSize:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, truncated(err)
	}
	return k, frame, nil
}

// buffer returns n bytes, the kept ones if they suffice.
func (r *Receiver) buffer(n int) []byte {
	if n > cap(r.buf) {
		b := make([]byte, n)
		if n <= keepBuffer {
			r.buf = b
		}
		return b
	}
	return r.buf[:n]
}

func truncated(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}

// open verifies a frame and decodes it.
func (r *Receiver) open(k kind, frame []byte) (Message, error) {
	end := len(frame) - MACSize
	if !hmac.Equal(r.maker.next(frame[:end]), frame[end:]) {
		return nil, ErrMAC
	}
	return decode(k, frame[HeaderSize:end])
}
