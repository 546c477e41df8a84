// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The key of RFC 8032, section 7.1, test 1, as openssl writes it.
const (
	privatePEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"
	publicPEM  = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"
)

func testKey(t testing.TB) *Key {
	t.Helper()
	key, err := Parse([]byte(privatePEM))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestForms(t *testing.T) {
	key := testKey(t)
	if got := string(key.PEM()); got != publicPEM {
		t.Errorf("public half:\n%s", got)
	}
	if got := string(key.pem()); got != privatePEM {
		t.Errorf("private half is written otherwise than it was read")
	}
	other, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"public": publicPEM, "private": privatePEM, "with a preamble": "Fingerprint: x\n" + publicPEM + "\n",
	} {
		ring, err := ParseRing([]byte(data + string(other.PEM())))
		if err != nil || len(ring) != 2 || ring[0].Fingerprint() != key.Fingerprint() || ring[1].Fingerprint() != other.Fingerprint() {
			t.Errorf("%s: %v, %v", name, ring, err)
		}
	}
	for name, data := range map[string]string{
		"empty": "", "text": "hello", "cut": privatePEM[:60], "trailing": privatePEM + "x",
		"another kind": "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := Parse([]byte(data)); !errors.Is(err, ErrKey) {
			t.Errorf("%s: key: %v", name, err)
		}
		if _, err := ParseRing([]byte(data)); !errors.Is(err, ErrKey) {
			t.Errorf("%s: ring: %v", name, err)
		}
	}
	if _, err := Parse([]byte(publicPEM)); !errors.Is(err, ErrKey) {
		t.Errorf("a public key signs: %v", err)
	}
}

// TestEveryBitOfALine: no bit of a signed line can be changed, and no line of one kind passes for one of another.
func TestEveryBitOfALine(t *testing.T) {
	key := testKey(t)
	ring := Ring{key.Public}
	line := key.Sign("context", []byte(`{"v":1,"text":"hello"}`))
	if fingerprint, err := ring.Check("context", line); err != nil || fingerprint != key.Fingerprint() {
		t.Fatalf("%q: %q, %v", line, fingerprint, err)
	}
	for i := range line {
		for bit := range 8 {
			changed := bytes.Clone(line)
			changed[i] ^= 1 << bit
			if _, err := ring.Check("context", changed); err == nil {
				t.Errorf("byte %d, bit %d: passes: %q", i, bit, changed)
			}
		}
	}
	for n := range line {
		if _, err := ring.Check("context", line[:n]); err == nil {
			t.Errorf("the first %d bytes pass", n)
		}
	}
	if _, err := ring.Check("another context", line); !errors.Is(err, ErrSignature) {
		t.Errorf("another context: %v", err)
	}
	other, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownKeyError
	if _, err := (Ring{other.Public}).Check("context", line); !errors.As(err, &unknown) || unknown.Fingerprint != key.Fingerprint() {
		t.Errorf("another key: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	key := testKey(f)
	line := key.Sign("c", []byte(`{"v":1}`))
	f.Add(line)
	f.Add(line[:len(line)-1])
	f.Add([]byte(keyField + strings.Repeat("0", 64) + `"` + signatureField + strings.Repeat("0", 128) + lineEnd))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := (Ring{key.Public}).Check("c", data); err == nil && !bytes.Equal(data, line) {
			t.Fatalf("%q passes", data)
		}
	})
}

// TestMain lets the tests run this program again as a process that makes a key.
func TestMain(m *testing.M) {
	if path := os.Getenv("METSUKE_SIGNATURE_TEST_KEY"); path != "" {
		key, err := LoadOrMake(path)
		if err != nil {
			fmt.Fprint(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(key.Fingerprint())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestOneKey: however many processes of a node begin at once, they sign with the same key, and leave nothing else behind.
func TestOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib", "metsuke", "key.pem")
	var wg sync.WaitGroup
	got := make([]string, 12)
	for i := range got {
		wg.Go(func() {
			if i%2 == 0 { // in this process
				key, err := LoadOrMake(path)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = key.Fingerprint()
				return
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "METSUKE_SIGNATURE_TEST_KEY="+path)
			out, err := cmd.Output()
			if err != nil {
				t.Error(err)
			}
			got[i] = string(out)
		})
	}
	wg.Wait()
	for _, fingerprint := range got {
		if len(fingerprint) != 64 || fingerprint != got[0] {
			t.Errorf("keys %q", got)
			break
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestFilesThatProveNothing(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(data), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := write("foreign", privatePEM, 0o600)
	if err := os.Chown(foreign, 1, 1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, err string }{
		{write("open", privatePEM, 0o640), "others can read it"},
		{foreign, "must belong to user"},
		{write("damaged", privatePEM[:70], 0o600), "not an Ed25519 key"},
		{write("large", strings.Repeat("x", maxFile+1), 0o600), "larger than"},
		{dir, "not a file"},
	} {
		for _, load := range []func(string) (*Key, error){Load, LoadOrMake} {
			if _, err := load(tt.path); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want one with %q", tt.path, err, tt.err)
			}
		}
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if ring, err := LoadRing(write("public", publicPEM, 0o644)); err != nil || len(ring) != 1 {
		t.Errorf("public: %v, %v", ring, err)
	}
}

func BenchmarkSign(b *testing.B) {
	key := testKey(b)
	object := bytes.Repeat([]byte("x"), 500)
	for b.Loop() {
		key.Sign("c", object)
	}
}
