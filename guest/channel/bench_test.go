// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"io"
	"testing"
)

// hot are the messages of every audited call.
var hot = []struct {
	name string
	d    Direction
	m    Message
}{
	{"Event", GuestToHost, Event{Seq: 7, Record: bytes.Repeat([]byte("x"), 512)}},
	{"Ack", HostToGuest, Ack{Seq: 7}},
}

func BenchmarkSend(b *testing.B) {
	for _, bm := range hot {
		b.Run(bm.name, func(b *testing.B) {
			s := started(io.Discard, bm.d)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Send(bm.m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, bm := range hot {
		b.Run(bm.name, func(b *testing.B) {
			pr, pw := io.Pipe()
			s := started(pw, bm.d)
			go func() {
				for s.Send(bm.m) == nil {
				}
			}()
			r := NewReceiver(pr, secret, bm.d)
			r.maker.skip(bm.d)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Receive(); err != nil {
					b.Fatal(err)
				}
			}
			pr.Close()
		})
	}
}
