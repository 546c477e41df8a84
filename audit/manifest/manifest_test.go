// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/signature"
)

func newKey(t testing.TB) *signature.Key {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// slots returns the file of a head that was written so many times.
func slots(t testing.TB, key *signature.Key, times uint64) []byte {
	t.Helper()
	var file []byte
	for n := uint64(1); n <= times; n++ {
		h := Head{Number: n, Time: time.Unix(int64(n), 0), ID: journal.Zero[:32], At: Point{Seq: n, Chain: journal.Zero, Segment: 1}, Lines: 1, Last: journal.Zero}
		slot, offset, err := h.Slot(key)
		if err != nil {
			t.Fatal(err)
		}
		if len(file) < int(offset)+HeadSlot {
			file = append(file, make([]byte, int(offset)+HeadSlot-len(file))...)
		}
		copy(file[offset:], slot)
	}
	return file
}

func TestHeads(t *testing.T) {
	key := newKey(t)
	ring := signature.Ring{key.Public}
	for n := uint64(1); n <= 5; n++ {
		file := slots(t, key, n)
		heads, errs := ReadHeads(bytes.NewReader(file), ring)
		if newest := Newest(heads); errs != [2]error{} || newest == nil || newest.Number != n || newest.At.Seq != n || (heads[0] == nil || heads[1] == nil) != (n == 1) {
			t.Errorf("%d: %+v, %v", n, heads, errs)
		}
	}
	two, three := slots(t, key, 2), slots(t, key, 3)
	other := newKey(t)
	for name, tt := range map[string]struct {
		file []byte
		keys signature.Ring
	}{
		"empty":         {nil, ring},
		"cut":           {two[:HeadSlot+7], ring},
		"longer":        {append(bytes.Clone(two), ' '), ring},
		"alone":         {three[:HeadSlot], ring},
		"slots swapped": {append(bytes.Clone(two[HeadSlot:]), two[:HeadSlot]...), ring},
		"zeros":         {append(bytes.Clone(two[:HeadSlot]), make([]byte, HeadSlot)...), ring},
		"far apart":     {append(bytes.Clone(slots(t, key, 5)[:HeadSlot]), two[HeadSlot:]...), ring},
		"another's":     {three, signature.Ring{other.Public}},
	} {
		if _, errs := ReadHeads(bytes.NewReader(tt.file), tt.keys); errs == [2]error{} {
			t.Errorf("%s: passes", name)
		}
	}
	heads, errs := ReadHeads(bytes.NewReader(three), nil)
	var unknown *signature.UnknownKeyError
	if Newest(heads) == nil || !errors.As(errs[0], &unknown) {
		t.Errorf("without keys: %v, %v", heads, errs)
	}
}

// TestEveryBitOfAHead: also those of the blanks.
func TestEveryBitOfAHead(t *testing.T) {
	key := newKey(t)
	file := slots(t, key, 1)
	for i := range file {
		for bit := range 8 {
			changed := bytes.Clone(file)
			changed[i] ^= 1 << bit
			if _, errs := ReadHeads(bytes.NewReader(changed), signature.Ring{key.Public}); errs == [2]error{} {
				t.Fatalf("byte %d, bit %d: passes", i, bit)
			}
		}
	}
}

// TestLargestHead: a head always fits its slot.
func TestLargestHead(t *testing.T) {
	h := Head{
		Number: 1<<63 + 1, Time: time.Unix(1<<33, 999_999_999), ID: NewID(), Lines: 1 << 63, Last: journal.Zero, Ledger: 1 << 63,
		At: Point{Seq: 1 << 63, Chain: journal.Zero, Segment: 1<<31 - 1, Offset: 1<<63 - 1},
	}
	if _, _, err := h.Slot(newKey(t)); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		entry Entry
		err   string
	}{
		{Entry{Kind: Begin, Begin: &Beginning{}}, ""},
		{Entry{Kind: Segment, Segment: &Complete{}}, ""},
		{Entry{Kind: Close, Close: &Closing{}}, ""},
		{Entry{Kind: Begin}, "needs its own payload"},
		{Entry{Kind: Begin, Close: &Closing{}}, "needs its own payload"},
		{Entry{Kind: Begin, Begin: &Beginning{}, Close: &Closing{}}, "needs its own payload"},
		{Entry{Kind: "newer"}, "a version that this program does not read"},
	} {
		if err := tt.entry.Check(); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %v", tt.entry, err)
		}
	}
}

func TestRemovalCheck(t *testing.T) {
	for want, r := range map[string]Removal{
		"":               {ID: "a", From: 1, To: 1},
		"another stream": {ID: "b", From: 1, To: 1},
		"segments 0":     {ID: "a", From: 0, To: 1},
		"segments 3":     {ID: "a", From: 3, To: 2},
	} {
		if err := r.Check("a"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// FuzzReadHeads: whatever is in the file, a head that passes was written by who has the key.
func FuzzReadHeads(f *testing.F) {
	// The key of RFC 8032, section 7.1, test 1: the processes of a fuzzing run must have the same one.
	key, err := signature.Parse([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"))
	if err != nil {
		f.Fatal(err)
	}
	file := slots(f, key, 2)
	f.Add(file)
	f.Add(file[:HeadSlot])
	f.Add(bytes.Repeat([]byte(" "), 2*HeadSlot))
	f.Fuzz(func(t *testing.T, in []byte) {
		heads, errs := ReadHeads(bytes.NewReader(in), signature.Ring{key.Public})
		for i, h := range heads {
			if slot := file[i*HeadSlot:][:HeadSlot]; h != nil && errs[i] == nil && !bytes.Equal(in[i*HeadSlot:][:HeadSlot], slot) {
				t.Fatalf("slot %d passes: %q", i, in)
			}
		}
		_, _ = Resume(in)
	})
}
