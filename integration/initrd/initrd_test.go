// SPDX-License-Identifier: Apache-2.0

package initrd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The form is the kernel's business, and cmd/nodevm's test boots from one. Here: what is in it, once and in order.
func TestWriter(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.File("a/b/one", []byte("12345"), 0o755)
	w.Dir("/a/b/")
	w.File("a/two", nil, 0o600)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for rest := b.Bytes(); len(rest) > 0; {
		if !bytes.HasPrefix(rest, []byte("070701")) || len(rest)%4 != 0 {
			t.Fatalf("no header, or not aligned: %q", rest[:min(20, len(rest))])
		}
		size, nameSize := field(t, rest, 6), field(t, rest, 11)
		names = append(names, string(rest[110:110+nameSize-1])+" "+string(rest[14:22]))
		rest = rest[(110+nameSize+3)&^3+(size+3)&^3:]
	}
	want := []string{"a 000041ed", "a/b 000041ed", "a/b/one 000081ed", "a/two 00008180", "TRAILER!!! 00000000"}
	if !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

// field is one of the header's numbers, counted from 0 after the magic.
func field(t *testing.T, header []byte, index int) int {
	t.Helper()
	n := 0
	for _, c := range header[6+8*index : 14+8*index] {
		digit := strings.IndexByte("0123456789abcdef", c)
		if digit < 0 {
			t.Fatalf("header %q", header[:110])
		}
		n = n*16 + digit
	}
	return n
}

func TestWriterKeepsTheFirstError(t *testing.T) {
	w := NewWriter(&bytes.Buffer{})
	w.Copy("one", filepath.Join(t.TempDir(), "gone"), 0o644)
	w.File("two", nil, 0o644)
	if err := w.Close(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close: %v", err)
	}
}

func TestModules(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep": "kernel/fs/virtiofs.ko: kernel/virtio.ko kernel/virtio_ring.ko kernel/fs/fuse.ko\nkernel/fs/fuse.ko:\n" +
			"kernel/virtio.ko: kernel/virtio_ring.ko\nkernel/virtio_ring.ko:\nkernel/my-net.ko.xz: kernel/virtio.ko kernel/virtio_ring.ko\n",
		"modules.builtin": "kernel/unix.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Modules(dir, "unix", "virtiofs", "my_net")
	want := []string{"kernel/fs/fuse.ko", "kernel/virtio_ring.ko", "kernel/virtio.ko", "kernel/fs/virtiofs.ko", "kernel/my-net.ko.xz"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := Modules(dir, "virtio", "nonesuch"); err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("unknown module: %v", err)
	}
}
