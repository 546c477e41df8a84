// SPDX-License-Identifier: Apache-2.0

// Package bundle loads, edits and atomically writes the config.json of an OCI bundle, and the process of an
// exec request. It knows the form, not the policy: which edits are made is its caller's decision.
//
// An edit touches the members that it names and nothing else. Fields that are newer than our runtime-spec, the
// spelling of numbers and the order survive, because only the touched levels of the JSON tree are taken apart.
//
// Nothing here is safe for concurrent use; a bundle belongs to one Create. Calls block on the file system only.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Files in the bundle directory.
const (
	configFile = "config.json"
	// OriginalFile holds config.json as containerd wrote it, mode 0600.
	OriginalFile = "config.json.metsuke-orig"
	// digestFile holds the sha256 of the config.json that we wrote, so that a second Create in the same bundle
	// starts from the original instead of editing our own edits.
	digestFile = "config.json.metsuke-sum"
)

// MaxConfig bounds config.json, and the process of an exec. containerd's own messages end at 16 MiB.
const MaxConfig = 16 << 20

// A Bundle is the config.json of one container.
type Bundle struct {
	dir   string
	spec  *Spec
	raw   []byte // what Load read: the original
	mode  fs.FileMode
	owner syscall.Stat_t
}

// Load reads the config.json of the bundle directory dir. If a Create before this one has rewritten it, what is
// read is the original. It fails for files that are not regular, larger than [MaxConfig], or not one JSON object
// in which names are unique.
func Load(dir string) (*Bundle, error) {
	b := &Bundle{dir: dir}
	raw, info, err := b.read(configFile)
	if err != nil {
		return nil, fmt.Errorf("load bundle: %w", err)
	}
	b.mode, b.owner = info.Mode().Perm(), *info.Sys().(*syscall.Stat_t)
	if ours, err := b.wrote(raw); err != nil {
		return nil, fmt.Errorf("load bundle: %w", err)
	} else if ours {
		if raw, _, err = b.read(OriginalFile); err != nil {
			return nil, fmt.Errorf("load bundle: config.json is rewritten already, and its original is needed: %w", err)
		}
	}
	b.raw = raw
	if b.spec, err = parseSpec(raw); err != nil {
		return nil, fmt.Errorf("load bundle: %s: %w", filepath.Join(dir, configFile), err)
	}
	return b, nil
}

// wrote reports whether raw is what Commit put into config.json.
func (b *Bundle) wrote(raw []byte) (bool, error) {
	sum, _, err := b.read(digestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && string(sum) == digest(raw), err
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func (b *Bundle) read(name string) ([]byte, fs.FileInfo, error) {
	path := filepath.Join(b.dir, name)
	// Not through a link and not blocking on a FIFO, should something have been put in its place.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: is no regular file", path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err != nil {
		return nil, nil, err
	}
	if len(raw) > MaxConfig {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", path, MaxConfig)
	}
	return raw, info, nil
}

// Spec returns the specification, as edited so far.
func (b *Bundle) Spec() *Spec { return b.spec }

// Apply makes edits in order and stops at the first error, after which the bundle must not be committed.
// Nothing is written.
func (b *Bundle) Apply(edits ...Edit) error {
	for _, edit := range edits {
		if err := edit(b.spec); err != nil {
			return fmt.Errorf("edit config.json: %w", err)
		}
	}
	return nil
}

// Commit writes the edited specification to config.json, with the mode and owner that it had, and keeps the
// original beside it. Readers see the one or the other, whole, whenever we are killed. Nothing is synced to disk:
// a bundle does not outlive a crash of the machine. Where the edits changed nothing, the original stays as it is.
func (b *Bundle) Commit() error {
	edited := b.spec.root.append(nil)
	var same bytes.Buffer
	if err := json.Compact(&same, b.raw); err == nil && bytes.Equal(same.Bytes(), edited) {
		return b.Restore() // of a rewrite by an earlier Create
	}
	if len(edited) > MaxConfig {
		return fmt.Errorf("write bundle: the edited config.json is larger than %d bytes", MaxConfig)
	}
	// In this order: a digest without its config.json matches nothing, an original without digest is not used.
	if err := b.write(OriginalFile, b.raw, 0o600, false); err != nil {
		return fmt.Errorf("write bundle: keep the original: %w", err)
	}
	if err := b.write(digestFile, []byte(digest(edited)), 0o600, false); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := b.write(configFile, edited, b.mode, true); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// Restore puts the original config.json back and removes what Commit left. Without a Commit it does nothing.
func (b *Bundle) Restore() error {
	raw, info, err := b.read(configFile)
	if err != nil {
		return fmt.Errorf("restore bundle: %w", err)
	}
	ours, err := b.wrote(raw)
	if err != nil {
		return fmt.Errorf("restore bundle: %w", err)
	}
	if ours {
		original, _, err := b.read(OriginalFile)
		if err != nil {
			return fmt.Errorf("restore bundle: %w", err)
		}
		if !bytes.Equal(raw, original) {
			b.mode, b.owner = info.Mode().Perm(), *info.Sys().(*syscall.Stat_t)
			if err := b.write(configFile, original, b.mode, true); err != nil {
				return fmt.Errorf("restore bundle: %w", err)
			}
		}
	}
	for _, name := range []string{digestFile, OriginalFile} {
		if err := os.Remove(filepath.Join(b.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("restore bundle: %w", err)
		}
	}
	return nil
}

// write replaces a file of the bundle in one step.
func (b *Bundle) write(name string, data []byte, mode fs.FileMode, keepOwner bool) (err error) {
	f, err := os.CreateTemp(b.dir, "."+name+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if keepOwner {
		if err := f.Chown(int(b.owner.Uid), int(b.owner.Gid)); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil { // after chown, which clears bits
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(b.dir, name)); err != nil {
		return err
	}
	return f.Close()
}
