// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// exchangeRaw writes raw frames and returns the first frame that comes back.
func exchangeRaw(t *testing.T, path string, frames ...[]byte) (header, []byte) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	for _, f := range frames {
		if _, err := conn.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	r := frameReader{r: conn}
	h, frame, err := r.next()
	if err != nil {
		t.Fatal(err)
	}
	return h, frame[headerLen:]
}

// Frames that are no proper requests get the answer that ttrpc itself gives.
func TestBadFramesAsTTRPC(t *testing.T) {
	u := newUpstream(t)
	_, _, path := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, "Echo")})
	request, _ := proto.Marshal(&ttrpc.Request{Service: testService, Method: "Echo"})
	for name, frame := range map[string][]byte{
		"oversized":       append(oversizedHeader(1), make([]byte, maxFrame+1)...),
		"undecodable":     appendFrame(nil, 1, frameRequest, 0, []byte("\xff\xff\xff")),
		"data of nothing": appendFrame(nil, 3, 3, 0, []byte("x")),
		"request":         appendFrame(nil, 1, frameRequest, 0, request),
		"future kind":     append(appendFrame(nil, 1, 9, 7, []byte("?")), appendFrame(nil, 1, frameRequest, 0, request)...),
	} {
		t.Run(name, func(t *testing.T) {
			wantH, want := exchangeRaw(t, u.path, frame)
			gotH, got := exchangeRaw(t, path, frame)
			var a, b ttrpc.Response
			if err := errors.Join(proto.Unmarshal(want, &a), proto.Unmarshal(got, &b)); err != nil {
				t.Fatal(err)
			}
			// A status of zero and none are the same; only the upstream's own path says which.
			if a.Status.GetCode() == 0 && b.Status.GetCode() == 0 {
				a.Status, b.Status = nil, nil
			}
			if gotH.kind != wantH.kind || gotH.stream != wantH.stream || gotH.flags != wantH.flags || !proto.Equal(&a, &b) {
				t.Errorf("answer %+v %v, ttrpc's is %+v %v", gotH, &b, wantH, &a)
			}
		})
	}
}

func oversizedHeader(stream uint32) []byte {
	b := make([]byte, headerLen)
	header{length: maxFrame + 1, stream: stream, kind: frameRequest}.put(b)
	return b
}

// Frames of kinds that we do not know reach the upstream as they are, byte for byte.
func TestVerbatim(t *testing.T) {
	var want []byte
	unknown, _ := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m", Payload: []byte("p")})
	unknown = append(unknown, "\xa2\x06\x03new"...) // field 100: of a newer envelope
	for i, f := range [][]byte{unknown, {}, bytes.Repeat([]byte("z"), 100_000)} {
		kind := []frameKind{frameRequest, 3, 200}[i]
		want = appendFrame(want, uint32(2*i+1), kind, uint8(0xf0+i), f)
	}
	path := filepath.Join(t.TempDir(), "up")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, len(want))
		_, _ = io.ReadFull(conn, buf)
		got <- buf
		_, _ = conn.Write(want) // and back
		_, _ = io.Copy(io.Discard, conn)
	}()
	_, _, proxyPath := through(t, Config{Dial: DialUnix(path), Intercept: intercept(forward, "Echo")})
	conn, err := net.Dial("unix", proxyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(want); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Error("the upstream got other bytes")
	}
	back := make([]byte, len(want))
	if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(back, want) {
		t.Errorf("the client got other bytes (%v)", err)
	}
}

// Fields of the envelope that are newer than us survive a handler.
func TestUnknownEnvelopeFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "up")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := frameReader{r: conn}
		_, frame, _ := r.next()
		got <- bytes.Clone(frame)
	}()
	_, _, proxyPath := through(t, Config{Dial: DialUnix(path), Intercept: func(*Call) Handler { return forward }})
	body, _ := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m"})
	conn, err := net.Dial("unix", proxyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendFrame(nil, 1, frameRequest, 0, append(body, "\xa2\x06\x03new"...))); err != nil {
		t.Fatal(err)
	}
	if frame := <-got; !bytes.Contains(frame, []byte("\xa2\x06\x03new")) {
		t.Errorf("the unknown field is lost: %q", frame)
	}
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, 1, frameRequest, 0, []byte("abc")))
	f.Add(appendFrame(appendFrame(nil, 1, frameRequest, 0, nil), 3, frameResponse, 4, []byte("x")))
	f.Add(append(oversizedHeader(9), "rest"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := frameReader{r: bytes.NewReader(data)}
		var back []byte
		for {
			h, frame, err := r.next()
			if errors.Is(err, errOversized) {
				if h.length <= maxFrame || r.discard(h) == nil && int(h.length) > len(data) {
					t.Fatalf("oversized frame %+v of %d bytes", h, len(data))
				}
				return
			}
			if err != nil {
				break
			}
			if int(h.length) != len(frame)-headerLen || binary.BigEndian.Uint32(frame[4:8]) != h.stream {
				t.Fatalf("header %+v, frame %x", h, frame)
			}
			back = append(back, frame...)
		}
		if !bytes.HasPrefix(data, back) {
			t.Fatalf("read %x from %x", back, data)
		}
	})
}
