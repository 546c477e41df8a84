// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"testing"
)

// FuzzFrame feeds any bytes to the decoders. What they take must be encoded to the same bytes: the
// wire form has one encoding for each value, and no decoder reads past what the header says.
func FuzzFrame(f *testing.F) {
	for _, p := range plans {
		frame, err := p.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	hello, err := Hello{Token: "ABCDEFGH"}.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hello)
	f.Add(Failure{Stage: StageStat, Errno: 2, Arg: "/bin/x"}.Append(nil))
	f.Add(AppendHeader(nil, TypeArmed, 0))
	f.Add(AppendHeader(nil, TypeListener, 0))
	f.Add(AppendListenerAt(nil, 9))
	f.Fuzz(func(t *testing.T, frame []byte) {
		typ, n, err := ParseHeader(frame)
		if err != nil || len(frame) != HeaderSize+n {
			return
		}
		var again []byte
		switch body := frame[HeaderSize:]; typ {
		case TypeHello:
			h, err := DecodeHello(body)
			if err != nil {
				return
			}
			again, err = h.Append(nil)
			if err != nil {
				t.Fatalf("taken, but not sent: %v", err)
			}
		case TypePlan:
			p, err := DecodePlan(body)
			if err != nil {
				return
			}
			again, err = p.Append(nil)
			if err != nil {
				t.Fatalf("taken, but not sent: %v", err)
			}
		case TypeFailure:
			failure, err := DecodeFailure(body)
			if err != nil {
				return
			}
			again = failure.Append(nil)
		case TypeListenerAt:
			fd, err := DecodeListenerAt(body)
			if err != nil {
				return
			}
			again = AppendListenerAt(nil, fd)
		default:
			again = AppendHeader(nil, typ, n)
		}
		if !bytes.Equal(again, frame) {
			t.Errorf("decoded and encoded again:\n got %x\nwant %x", again, frame)
		}
	})
}
