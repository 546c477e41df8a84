// SPDX-License-Identifier: Apache-2.0

package seekable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// content is like records: it repeats itself, and not quite. Every third piece cannot be compressed.
func content(size int) []byte {
	source := rand.New(rand.NewPCG(1, uint64(size)))
	var b bytes.Buffer
	for n := 0; b.Len() < size; n++ {
		if n%3 == 2 {
			noise := make([]byte, 200)
			for i := range noise {
				noise[i] = byte(source.Uint32())
			}
			b.Write(noise)
			continue
		}
		fmt.Fprintf(&b, `{"v":1,"seq":%d,"kind":"syscall","pid":%d,"chain":"%016x"}`+"\n", n, source.Uint32N(99), source.Uint64())
	}
	return b.Bytes()[:size]
}

func compress(t testing.TB, plain []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	n, err := Compress(&packed, bytes.NewReader(plain))
	if err != nil || n != int64(len(plain)) {
		t.Fatal(n, err)
	}
	return packed.Bytes()
}

// read is all of a file's content, and whether it is as it was written.
func read(packed []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	return plain, errors.Join(err, r.Check())
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 1000, FrameBytes - 1, FrameBytes, FrameBytes + 1, 3*FrameBytes + 77} {
		plain := content(size)
		packed := compress(t, plain)
		if got, err := read(packed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
		if all := compress(t, make([]byte, size)); size > 1000 && len(all) > size/100 {
			t.Errorf("%d zeros take %d bytes", size, len(all))
		}
	}
}

func TestReadAt(t *testing.T) {
	plain := content(3*FrameBytes + 77)
	packed := compress(t, plain)
	r, err := NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil || r.Size() != int64(len(plain)) {
		t.Fatal(err)
	}
	for _, at := range []int{0, 1, FrameBytes - 1, FrameBytes, 2*FrameBytes + 5, len(plain) - 1, len(plain), len(plain) + 9} {
		for _, length := range []int{0, 1, 100, FrameBytes + 3} {
			p := make([]byte, length)
			n, err := r.ReadAt(p, int64(at))
			want := plain[min(at, len(plain)):min(at+length, len(plain))]
			if !bytes.Equal(p[:n], want) || (err == nil) != (n == length) || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes at %d: %d, %v", length, at, n, err)
			}
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset passes")
	}
}

// TestEveryBit: none can be changed unseen, nor a byte be added or taken away.
func TestEveryBit(t *testing.T) {
	packed := compress(t, content(3000))
	for i := range packed {
		for bit := range 8 {
			packed[i] ^= 1 << bit
			if _, err := read(packed); !errors.Is(err, ErrForm) {
				t.Fatalf("byte %d of %d, bit %d: %v", i, len(packed), bit, err)
			}
			packed[i] ^= 1 << bit
		}
		if _, err := read(packed[:i]); !errors.Is(err, ErrForm) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	for _, other := range [][]byte{append(bytes.Clone(packed), 0), append([]byte{0}, packed...), append(bytes.Clone(packed), packed...)} {
		if _, err := read(other); !errors.Is(err, ErrForm) {
			t.Errorf("%d bytes, not %d: %v", len(other), len(packed), err)
		}
	}
}

// withTable makes a file of frames as somebody would who wants to cost us time and memory.
func withTable(plain int64, frames ...[]byte) []byte {
	var file []byte
	var sizes []uint32
	for _, f := range frames {
		file, sizes = append(file, f...), append(sizes, uint32(len(f)))
	}
	file = append(file, make([]byte, digestBytes)...)
	return appendTable(file, sizes, plain)
}

// TestBombs: what a frame says of itself and what the table says have to be the same, and no more than a frame may have.
func TestBombs(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	bomb := encoder.EncodeAll(make([]byte, 1<<28), nil)
	var stream bytes.Buffer // its frame does not say how much it is
	w, err := zstd.NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	for range 1 << 8 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	small := encoder.EncodeAll(make([]byte, 1000), nil)
	for name, file := range map[string][]byte{
		"a frame of 256 MiB":     withTable(FrameBytes, bomb),
		"that does not say so":   withTable(FrameBytes, stream.Bytes()),
		"two frames as one":      withTable(1000, append(bytes.Clone(small), small...)),
		"less than the table":    withTable(1001, small),
		"more than the table":    withTable(999, small),
		"a skippable frame":      withTable(1000, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, digestMagic), 0)),
		"an endless table":       append(bytes.Repeat([]byte{0}, 200), 0xff, 0xff, 0xff, 0x7f, 0, 0xb1, 0xea, 0x92, 0x8f),
		"nothing but its digest": withTable(0)[1:],
	} {
		if plain, err := read(file); !errors.Is(err, ErrForm) || len(plain) > FrameBytes {
			t.Errorf("%s: %d bytes, %v", name, len(plain), err)
		}
	}
}

// TestByOtherMeans: zstd itself reads it.
func TestByOtherMeans(t *testing.T) {
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Skipf("zstd is not installed: %v", err)
	}
	plain := content(2*FrameBytes + 500)
	cmd := exec.Command(tool, "-dc")
	cmd.Stdin = bytes.NewReader(compress(t, plain))
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, plain) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// FuzzRead: whatever the file is, reading it ends, and gives no more than the table says.
func FuzzRead(f *testing.F) {
	f.Add(compress(f, content(0)))
	f.Add(compress(f, content(300)))
	f.Fuzz(func(t *testing.T, packed []byte) {
		r, err := NewReader(bytes.NewReader(packed), int64(len(packed)))
		if err != nil {
			return
		}
		got, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, min(r.Size(), 4*FrameBytes)))
		if err == nil && got != min(r.Size(), 4*FrameBytes) {
			t.Fatalf("%d bytes of %d", got, r.Size())
		}
	})
}
