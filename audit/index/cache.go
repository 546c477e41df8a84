// SPDX-License-Identifier: Apache-2.0

package index

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/internal/fsys"
)

// MinBytes is the size below which a segment is not worth an index: to read it takes no longer.
const MinBytes = 1 << 20

// Bounds of what is kept: when there is more than the one, the oldest go until there is the other.
const (
	maxFiles  = 8192 // of 12 KiB: 98 MiB
	keepFiles = 6144
)

// Key says which file an index is of, and in which state: its device, inode, size, and the times when its content and its inode were
// last changed. Whoever changes the file changes the key.
type Key [sha256.Size]byte

// KeyOf returns the key of a segment, and its size in bytes. What is not a regular file is an error.
func KeyOf(path string) (key Key, size int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Key{}, 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Key{}, 0, fmt.Errorf("%s: not a regular file", path)
	}
	text := fmt.Sprintf("%d %d %d %d.%09d %d.%09d", st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
	return sha256.Sum256([]byte(text)), st.Size, nil
}

// Cache is a directory with indexes. Several processes can use one. Its methods are safe for concurrent use.
type Cache struct {
	dir string
	mu  sync.Mutex
	err error // guarded by mu
}

// Open opens the cache in a directory, which need not exist: the first Put makes it (mode 0700). One that others could write in is
// refused: an index says what need not be read. Of what is too much it removes the oldest.
func Open(dir string) (*Cache, error) {
	c := &Cache{dir: dir}
	err := c.check()
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = c.prune(maxFiles, keepFiles)
	}
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return c, nil
}

func (c *Cache) check() error {
	var st unix.Stat_t
	if err := unix.Lstat(c.dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: c.dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: owner %d, mode %#o: it must be a directory of user %d that nobody else writes in",
			c.dir, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return nil
}

// Err returns why the first index that could not be kept was not; none is kept after that.
func (c *Cache) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Get returns the index of the file that has the key, or nil if there is none that is whole.
func (c *Cache) Get(key Key) *Summary {
	f, err := fsys.OpenRegular(c.path(key))
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, encodedBytes+1))
	s := new(Summary)
	if err != nil || s.decode(data, key) != nil {
		return nil
	}
	return s
}

// Put keeps the index of the file that has the key, if it can: see Err.
func (c *Cache) Put(key Key, s *Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		if err := c.write(key, s); err != nil {
			c.err = fmt.Errorf("index: %w", err)
		}
	}
}

func (c *Cache) write(key Key, s *Summary) error {
	err := os.MkdirAll(c.dir, 0o700)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(s.encode(key))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path(key))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (c *Cache) path(key Key) string { return filepath.Join(c.dir, hex.EncodeToString(key[:16])) }

// ours are the names that Put makes: nothing else is removed, whatever directory was named.
var ours = regexp.MustCompile(`^([0-9a-f]{32}|\.new-[0-9]+)$`)

func (c *Cache) prune(most, keep int) error {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	if len(files) <= most {
		return nil
	}
	var infos []fs.FileInfo
	for _, f := range files {
		if !ours.MatchString(f.Name()) {
			continue
		}
		if info, err := f.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos[:max(0, len(infos)-keep)] {
		if err := os.Remove(filepath.Join(c.dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
