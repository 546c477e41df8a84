// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps a node's ledger: a journal beside the streams that tells of each writer that opened or closed one. It finds a
// stream whose whole directory is gone. All shims of a node append to it, one short line at a time.
package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/internal/flock"
)

// Name is the ledger's in the root of the streams, and Context what its lines are signed for.
const (
	Name    = "ledger"
	Context = "metsuke ledger 1"
)

// Kind says what a line tells.
type Kind string

// The kinds of lines. Removed is for retention: this version reads it, and writes none.
const (
	Begin   Kind = "begin"   // a writer has opened the stream
	End     Kind = "end"     // it has closed it
	Removed Kind = "removed" // the whole stream was removed on purpose
)

// Entry is a line of the ledger.
type Entry struct {
	journal.Place
	Kind   Kind   `json:"kind"`
	ID     string `json:"id"`     // of the stream, as in its manifest
	Stream string `json:"stream"` // its directory below the root
	// Manifest is the number of the manifest's line that says the same, and Hash the SHA-256 of that line.
	Manifest uint64 `json:"manifest"`
	Hash     string `json:"hash"`
	Seq      uint64 `json:"seq"`   // of the last record
	Chain    string `json:"chain"` // that record's
	Ended    bool   `json:"ended"` // with kind end: that record is of kind end
}

// Append adds a line to the ledger in root, and returns its number. It reads the last line only, and waits for other processes up to
// patience. It syncs the lines before, so that a power failure can take or tear this one only, but not this one.
func Append(root string, key *signature.Key, e *Entry, patience time.Duration) (line uint64, err error) {
	path := filepath.Join(root, Name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, errors.Join(fmt.Errorf("ledger %s: not a regular file", path), err)
	}
	if err := lock(file, patience); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, flock.Release(file)) }()
	j, err := journal.Open(file, Context)
	if err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	if err := file.Sync(); err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	if err := j.Append(key, e); err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	return j.Line(), nil
}

// Sync brings the ledger in root to the disk, and its name there.
func Sync(root string) error {
	for path, flags := range map[string]int{filepath.Join(root, Name): unix.O_NOFOLLOW | unix.O_NONBLOCK, root: unix.O_DIRECTORY} {
		file, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
		if err == nil {
			err = errors.Join(file.Sync(), file.Close())
		}
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

func lock(file *os.File, patience time.Duration) error {
	err := flock.Exclusive(file, patience, time.Millisecond)
	if errors.Is(err, flock.ErrHeld) {
		return fmt.Errorf("ledger %s: another process has kept it for %s", file.Name(), patience)
	}
	return err
}
