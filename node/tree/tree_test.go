// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// node makes a tree with a secret beside it, which no path of the tree may reach.
func node(t *testing.T) (tree *Tree, dir, outside string) {
	t.Helper()
	top := t.TempDir()
	dir, outside = filepath.Join(top, "host"), filepath.Join(top, "secret")
	for _, d := range []string{dir, outside, dir + "/etc"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, outside+"/file", "outside")
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree, dir, outside
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Links mean on the node what they mean there, and never what they mean to us.
func TestLinksStayInside(t *testing.T) {
	tree, dir, outside := node(t)
	link(t, outside, dir+"/absolute")
	link(t, "../../secret", dir+"/etc/upwards")
	link(t, "/etc", dir+"/alias") // as /var/run is of /run
	write(t, dir+"/etc/file", "inside")
	if got, err := tree.ReadFile("/alias/file"); err != nil || string(got) != "inside" {
		t.Errorf("a link of the node: %q, %v", got, err)
	}
	path, release, err := tree.Reach("/alias/../etc/file")
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "inside" {
		t.Errorf("Reach: %q", got)
	}
	release()
	if _, _, err := tree.Reach("/absolute/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reach outside: %v", err)
	}
	for _, name := range []string{"/absolute/file", "/etc/upwards/file", "/../secret/file", "/etc/../../secret/file"} {
		if got, err := tree.ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadFile(%s): %q, %v", name, got, err)
		}
		for what, err := range map[string]error{
			"WriteFile": tree.WriteFile(name, []byte("x"), 0o644),
			"Symlink":   tree.Symlink("x", name),
			"Mkdir":     tree.Mkdir(name+"-dir", 0o755),
			"Rename":    tree.Rename("/etc/file", name),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%s): %v", what, name, err)
			}
		}
		if err := errors.Join(tree.Remove(name), tree.RemoveAll(name), tree.Sweep(filepath.Dir(name))); err != nil {
			t.Errorf("removing what is not there: %v", err)
		}
	}
	if got := content(t, outside+"/file"); got != "outside" {
		t.Errorf("the file outside is %q", got)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside there is %v", entries)
	}
}

func TestWriteFile(t *testing.T) {
	tree, dir, _ := node(t)
	name := dir + "/etc/file"
	if err := tree.WriteFile("/etc/file", []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(name); st.Mode() != 0o640 || content(t, name) != "one" {
		t.Errorf("%v %q", st.Mode(), content(t, name))
	}
	// What the operator made of the mode stays.
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/etc/"+temporary("file"), "left by one that was killed")
	if err := tree.WriteFile("/etc/file", []byte("two"), 0o640); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(name); st.Mode() != 0o600 || content(t, name) != "two" {
		t.Errorf("%v %q", st.Mode(), content(t, name))
	}
	// A link is replaced: what it leads to is not ours to write.
	write(t, dir+"/etc/other", "other")
	link(t, "other", dir+"/etc/link")
	if err := tree.WriteFile("/etc/link", []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	if content(t, dir+"/etc/other") != "other" || content(t, dir+"/etc/link") != "three" {
		t.Error("a link was followed")
	}
	entries, _ := os.ReadDir(dir + "/etc")
	if len(entries) != 3 {
		t.Errorf("%v: want three files", entries)
	}
}

func TestSweep(t *testing.T) {
	tree, dir, _ := node(t)
	write(t, dir+"/etc/"+temporary("a"), "")
	write(t, dir+"/etc/b", "")
	if err := tree.Sweep("/etc"); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir + "/etc"); len(entries) != 1 || entries[0].Name() != "b" {
		t.Errorf("left: %v", entries)
	}
}

func TestFollow(t *testing.T) {
	tree, dir, _ := node(t)
	link(t, "/etc/b", dir+"/etc/a")
	link(t, "c", dir+"/etc/b")
	link(t, "loop", dir+"/etc/loop")
	if got, err := tree.Follow("/etc/a"); err != nil || got != "/etc/c" {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := tree.Follow("/etc/loop"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
}

// What is no file does not hold the reader up.
func TestReadFileRefuses(t *testing.T) {
	tree, dir, _ := node(t)
	if err := unix.Mkfifo(dir+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/large", "")
	if err := os.Truncate(dir+"/large", MaxFile+1); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/fifo", "/large", "/etc", "relative"} {
		done := make(chan error, 1)
		go func() {
			_, err := tree.ReadFile(name)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s was read", name)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s holds its reader up", name)
		}
	}
}

func TestLockExcludes(t *testing.T) {
	first, dir, _ := node(t)
	second, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	for range 2 {
		unlock, err := first.Lock("/etc/lock")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Lock("/etc/lock"); !errors.Is(err, ErrLocked) {
			t.Errorf("locked twice: %v", err)
		}
		if st, err := os.Stat(dir + "/etc/lock"); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("others can hold the lock: %v, %v", st, err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		first, second = second, first
	}
	if entries, _ := os.ReadDir(dir + "/etc"); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// Of many who take the lock again and again, one has it at a time, though each removes its file.
func TestLockStorm(t *testing.T) {
	tree, _, _ := node(t)
	var inside atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for taken := 0; taken < 20; {
				unlock, err := tree.Lock("/etc/lock")
				if errors.Is(err, ErrLocked) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two at once")
				}
				taken++
				inside.Add(-1)
				if err := unlock(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestRename(t *testing.T) {
	tree, dir, _ := node(t)
	if err := tree.Mkdir("/etc/d", 0o711); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/etc/d/f", "f")
	if err := tree.Rename("/etc/d", "/e"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir + "/e"); err != nil || st.Mode().Perm() != 0o711 || content(t, dir+"/e/f") != "f" {
		t.Errorf("%v, %v", st, err)
	}
	if err := tree.RemoveAll("/e"); err != nil {
		t.Fatal(err)
	}
	if found, err := tree.Glob("/*"); err != nil || len(found) != 1 || found[0] != "/etc" {
		t.Errorf("%v, %v", found, err)
	}
}
