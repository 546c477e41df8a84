// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"metsuke.dev/metsuke/internal/goldentest"
)

// TestGolden holds the wire form: if it changes, Version does.
func TestGolden(t *testing.T) {
	var got strings.Builder
	fmt.Fprintf(&got, "version %d\n", Version)
	for _, m := range messages {
		fmt.Fprintf(&got, "%T %s\n", m, hex.EncodeToString(send(t, m)))
	}
	goldentest.Equal(t, "testdata/frames.golden", got.String())
}

// TestEveryBitCounts changes each bit of each frame: none of the changes is taken.
func TestEveryBitCounts(t *testing.T) {
	for _, m := range messages {
		frame := send(t, m)
		for i := range len(frame) * 8 {
			bad := bytes.Clone(frame)
			bad[i/8] ^= 1 << (i % 8)
			if got, err := receive(m.kind(), direction(m), bad); err == nil {
				t.Fatalf("%T: taken with bit %d of byte %d changed, as %+v", m, i%8, i/8, got)
			}
		}
		for n := range frame {
			want := error(ErrTruncated)
			if n == 0 {
				want = io.EOF
			}
			if _, err := receive(m.kind(), direction(m), frame[:n]); !errors.Is(err, want) {
				t.Fatalf("%T: %d of %d bytes: %v", m, n, len(frame), err)
			}
		}
	}
}

// TestOrder sends whole frames where, or to whom, they do not belong.
func TestOrder(t *testing.T) {
	other := secret
	other[5]++
	frames := func(d Direction, secret [SecretSize]byte, skip bool, m ...Message) []byte {
		var buf bytes.Buffer
		s := NewSender(&buf, secret, d)
		if skip {
			s.maker.skip(d)
		}
		for _, m := range m {
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		return buf.Bytes()
	}
	start := messages[0]
	one := frames(GuestToHost, secret, false, Armed{ID: 1})
	pair := frames(GuestToHost, secret, false, Armed{ID: 1}, Armed{ID: 2})
	tests := []struct {
		name string
		d    Direction
		in   []byte
		good int // frames that are taken before the error
		want error
	}{
		{"in order", GuestToHost, pair, 2, io.EOF},
		{"twice", GuestToHost, bytes.Repeat(one, 2), 1, ErrMAC},
		{"swapped", GuestToHost, append(bytes.Clone(pair[len(one):]), one...), 0, ErrMAC},
		{"first left out", GuestToHost, pair[len(one):], 0, ErrMAC},
		{"another secret", GuestToHost, frames(GuestToHost, other, false, Armed{ID: 1}), 0, ErrMAC},
		{"the host's to the host", GuestToHost, frames(HostToGuest, secret, true, Arm{ID: 1}), 0, ErrType},
		{"the guest's to the guest", HostToGuest, one, 0, ErrType},
		{"start", HostToGuest, frames(HostToGuest, secret, false, start, Stop{}), 2, io.EOF},
		{"no start", HostToGuest, frames(HostToGuest, secret, true, Stop{}), 0, ErrType},
		{"start twice", HostToGuest, bytes.Repeat(frames(HostToGuest, secret, false, start), 2), 1, ErrType},
		{"empty", GuestToHost, nil, 0, io.EOF},
		{"text", GuestToHost, []byte("panic: runtime error"), 0, ErrMagic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReceiver(bytes.NewReader(tt.in), secret, tt.d)
			for range tt.good {
				if _, err := r.Receive(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // an error is final
				if m, err := r.Receive(); !errors.Is(err, tt.want) {
					t.Fatalf("got %v, %v, want %v", m, err, tt.want)
				}
			}
		})
	}
}

// TestHeader refuses what a header may not say, before it allocates or waits for a body.
func TestHeader(t *testing.T) {
	header := func(version byte, k kind, size int) []byte {
		return binary.LittleEndian.AppendUint32([]byte{'M', 'C', version, byte(k)}, uint32(size))
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"version", header(Version+1, kindArmed, 8), ErrVersion},
		{"type", header(Version, 99, 0), ErrType},
		{"type 0", header(Version, 0, 0), ErrType},
		{"short", header(Version, kindArmed, 7), ErrSize},
		{"long", header(Version, kindArmed, 9), ErrSize},
		{"record too long", header(Version, kindEvent, 16+MaxRecord+1), ErrSize},
		{"4 GiB", header(Version, kindEvent, 1<<32-1), ErrSize},
		{"longest record", header(Version, kindEvent, 16+MaxRecord), ErrTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewReceiver(bytes.NewReader(tt.in), secret, GuestToHost).Receive()
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// failing fails from its nth Write on.
type failing struct{ n int }

func (f *failing) Write(b []byte) (int, error) {
	if f.n--; f.n < 0 {
		return len(b) / 2, io.ErrClosedPipe
	}
	return len(b), nil
}

func TestSendAfterFailure(t *testing.T) {
	w := &failing{n: 1}
	s := NewSender(w, secret, GuestToHost)
	if err := s.Send(Event{}); !errors.Is(err, ErrSize) || w.n != 1 {
		t.Fatalf("out of bounds: %v, and %d writes are left", err, w.n)
	}
	if err := s.Send(Armed{ID: 1}); err != nil {
		t.Fatalf("after a refused message: %v", err)
	}
	if err := s.Send(Armed{ID: 2}); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	w.n = 9
	if err := s.Send(Armed{ID: 3}); !errors.Is(err, io.ErrClosedPipe) || w.n != 9 {
		t.Errorf("half a frame was followed by another: %v", err)
	}
}

func TestConcurrentSend(t *testing.T) {
	var buf bytes.Buffer
	s := NewSender(&buf, secret, GuestToHost)
	var wg sync.WaitGroup
	const senders, each = 8, 50
	for i := range senders {
		wg.Go(func() {
			for range each {
				if err := s.Send(Event{Seq: uint64(i + 1), Record: bytes.Repeat([]byte{'x'}, MinRecord+i*4000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r := NewReceiver(&buf, secret, GuestToHost)
	for range senders * each {
		if _, err := r.Receive(); err != nil {
			t.Fatal(err)
		}
	}
}
