// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"metsuke.dev/metsuke/internal/fsys"
)

// maxFile bounds a file of keys, in bytes.
const maxFile = 64 << 10

// Load reads a key from a file. It is refused when anybody but its owner, who must be this process's user, can read or write it.
func Load(path string) (*Key, error) {
	data, info, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if err := checkOwner(info); err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	key, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return key, nil
}

// LoadOrMake is Load for a file that is made, with its directories (mode 0700), if it is not there. However many processes do so at
// once, and whenever one of them is killed, all get the same key: a file is complete and synced before it has its name (link(2)).
func LoadOrMake(path string) (*Key, error) {
	key, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeFile(path); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return Load(path)
}

func makeFile(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := New()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.Remove(f.Name()))
	}()
	_, err = f.Write(key.pem())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) { // else another was faster
		return err
	}
	return fsys.SyncDir(dir)
}

// LoadRing reads the keys of a file, public or private.
func LoadRing(path string) (Ring, error) {
	data, _, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	ring, err := ParseRing(data)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return ring, nil
}

func read(path string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, nil, fmt.Errorf("%s: not a file, or larger than %d bytes", path, maxFile)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	return data, info, err
}

// checkOwner refuses a secret that others could have read or replaced.
func checkOwner(info os.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("mode %#o: others can read it, so it proves nothing; make a new one, or chmod 0600 it", mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("belongs to user %d: it must belong to user %d", st.Uid, os.Geteuid())
	}
	return nil
}
