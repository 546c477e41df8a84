// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/signature"
)

type statement struct {
	Place
	Text string `json:"text"`
}

const testContext = "test"

func newKey(t testing.TB) *signature.Key {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// write appends to the journal at path, and returns it.
func write(t testing.TB, path string, key *signature.Key, texts ...string) *Journal {
	t.Helper()
	j, err := Open(openFile(t, path), testContext)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if err := j.Append(key, &statement{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// read returns the texts of all lines that are good, and what is wrong with the one behind them.
func read(data []byte, keys signature.Ring) (texts []string, torn int64, err error) {
	r := NewReader(bytes.NewReader(data), testContext, keys)
	for {
		var s statement
		err := r.Next(&s)
		if errors.Is(err, io.EOF) {
			return texts, r.Torn(), nil
		}
		if err != nil {
			return texts, 0, err
		}
		texts = append(texts, s.Text)
	}
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestJournal(t *testing.T) {
	path, key := filepath.Join(t.TempDir(), "j"), newKey(t)
	keys := signature.Ring{key.Public}
	write(t, path, key, "a", "b")
	j := write(t, path, key, "c")
	if j.Line() != 3 || len(j.Last()) == 0 {
		t.Errorf("line %d, last %q", j.Line(), j.Last())
	}
	data := contents(t, path)
	if texts, torn, err := read(data, keys); err != nil || torn != 0 || strings.Join(texts, "") != "abc" {
		t.Errorf("%v, %d, %v", texts, torn, err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))[:3]
	for name, changed := range map[string][][]byte{
		"first taken out": lines[1:], "taken out": {lines[0], lines[2]}, "repeated": {lines[0], lines[1], lines[1]}, "moved": {lines[0], lines[2], lines[1]},
	} {
		var fault *Fault
		if _, _, err := read(bytes.Join(changed, nil), keys); !errors.As(err, &fault) || !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTornLine: wherever a crash cuts the last line, the journal goes on behind the one before.
func TestTornLine(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	path := filepath.Join(dir, "j")
	write(t, path, key, "a", "b")
	data := contents(t, path)
	second := bytes.IndexByte(data, '\n') + 1
	for cut := range data {
		torn := filepath.Join(dir, "torn")
		if err := os.WriteFile(torn, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		before := min(cut/second, 1)
		if got, n, err := read(data[:cut], signature.Ring{key.Public}); err != nil || len(got) != before || n != int64(cut-before*second) {
			t.Fatalf("cut at %d: read %v, %d torn, %v", cut, got, n, err)
		}
		j := write(t, torn, key, "c")
		if got, n, err := read(contents(t, torn), signature.Ring{key.Public}); err != nil || n != 0 || len(got) != before+1 || j.Line() != uint64(before+1) {
			t.Fatalf("cut at %d: went on %v, %d torn, %v", cut, got, n, err)
		}
	}
}

// TestDamageStays: a line that cannot be read stops no writer, and no reader passes over it.
func TestDamageStays(t *testing.T) {
	for name, last := range map[string]string{
		"no JSON": "hello\n", "no number": `{"v":1}` + "\n", "long": strings.Repeat("x", 3*MaxLine) + "\n", "empty": "\n",
	} {
		path, key := filepath.Join(t.TempDir(), "j"), newKey(t)
		write(t, path, key, "a", "b")
		before := contents(t, path)
		if err := os.WriteFile(path, append(bytes.Clone(before), last...), 0o600); err != nil {
			t.Fatal(err)
		}
		j := write(t, path, key, "c")
		if j.Line() != 4 || j.Last() != nil {
			t.Errorf("%s: it goes on as line %d", name, j.Line())
		}
		var fault *Fault
		if got, _, err := read(contents(t, path), signature.Ring{key.Public}); len(got) != 2 || !errors.As(err, &fault) || fault.Line != 3 || fault.Offset != int64(len(before)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestFailedWrite(t *testing.T) {
	path, key := filepath.Join(t.TempDir(), "j"), newKey(t)
	j := write(t, path, key, "a")
	for _, n := range []int{0, 7} {
		j.write = func(f *os.File, b []byte) (int, error) {
			m, _ := f.Write(b[:n])
			return m, unix.ENOSPC
		}
		if err := j.Append(key, &statement{Text: "b"}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error %v", err)
		}
	}
	j.write = (*os.File).Write
	if err := j.Append(key, &statement{Text: "c"}); err != nil {
		t.Error(err)
	}
	if got, _, err := read(contents(t, path), signature.Ring{key.Public}); err != nil || strings.Join(got, "") != "ac" {
		t.Errorf("%v, %v", got, err)
	}
	if err := j.Append(key, &statement{Text: strings.Repeat("x", MaxLine)}); err == nil || j.Line() != 2 {
		t.Errorf("a line that is too long: %v", err)
	}
}

// FuzzReader: whatever is in the file, what the reader passes was written by who has the key.
func FuzzReader(f *testing.F) {
	path, key := filepath.Join(f.TempDir(), "j"), newKey(f)
	write(f, path, key, "a", "b")
	data := contents(f, path)
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte("\n"))
	f.Add(bytes.Repeat([]byte("x"), MaxLine+1))
	f.Fuzz(func(t *testing.T, in []byte) {
		texts, _, _ := read(in, signature.Ring{key.Public})
		if good := len(texts); good > 0 && !bytes.HasPrefix(in, bytes.Join(bytes.SplitAfter(data, []byte("\n"))[:good], nil)) {
			t.Fatalf("read %q", texts)
		}
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, in, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := Open(openFile(t, path), testContext); err != nil {
			t.Fatal(err)
		} else if err := j.Append(key, &statement{Text: "c"}); err != nil {
			t.Fatal(err)
		}
	})
}
