// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/internal/flock"
	"metsuke.dev/metsuke/internal/fsys"
)

// bootName is the file in the root of streams that names the boot in which those were closed that the node had left open.
const bootName = "boot"

// CloseAllAbandoned closes all streams below root that a writer had when the node went down and that none has opened since, once in each boot
// of the node, and returns their directories. Later calls do nothing, nor do those beside the first one. What cannot be closed is in the error,
// and is not tried again in this boot: the next writer of such a stream reports what it finds.
func CloseAllAbandoned(root string, key *signature.Key) (closed []string, err error) {
	return closeAllAbandoned(root, Options{Key: key, LockWait: -1})
}

func closeAllAbandoned(root string, o Options) (closed []string, err error) {
	boot, err := bootID(o.bootID)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(root, bootName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // there are no streams yet
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := flock.Exclusive(file, -1, time.Millisecond); err != nil {
		if errors.Is(err, flock.ErrHeld) {
			return nil, nil
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, flock.Release(file)) }() // before it is closed: a child may have it as well
	done, err := io.ReadAll(io.LimitReader(file, 100))
	if err != nil || string(done) == boot+"\n" {
		return nil, err
	}
	streams, err := List(root)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, s := range streams {
		did, err := closeAbandoned(s.Path, o)
		if did {
			closed = append(closed, s.Path)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", s.Path, err))
		}
	}
	_, err = file.WriteAt([]byte(boot+"\n"), 0) // all ids have one length (random(4))
	return closed, errors.Join(append(failures, err)...)
}

// closeAbandoned closes the stream in dir if a writer had it when the node went down and none has opened it since: its pod is gone. It
// records the loss, as the next writer would have, and signs that the stream is closed. closed is false for any other stream: one that was
// closed, that is of this boot (whose shim, or the clean-up after it, will close it), that somebody has right now, or that is not signed.
// It reads the end of the manifest, and writes and waits for the disk only if there is something to close.
func closeAbandoned(dir string, o Options) (closed bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("close audit stream that the node left open: %w", err)
		}
	}()
	was, err := lastState(dir)
	if err != nil {
		return false, err
	}
	boot, err := bootID(o.bootID)
	if err != nil || !was.Open || was.Boot == "" || was.Boot == boot {
		return false, err
	}
	id, err := lastIdentity(dir)
	if err != nil {
		return false, err
	}
	w, err := OpenWriter(dir, id, o)
	if errors.Is(err, ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if id != (audit.Identity{}) && !w.Recovered().IsZero() { // without a record nothing says whose the loss would be
		err = w.Report(audit.LossShim, "the shim did not close this stream")
	}
	return true, errors.Join(err, w.Close())
}

// lastState returns what the last line of the manifest says, without locking or changing anything; nothing if there is none.
func lastState(dir string) (manifest.State, error) {
	d, err := os.Open(dir)
	if err != nil {
		return manifest.State{}, err
	}
	defer d.Close()
	file, err := openAt(d, manifest.Name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return manifest.State{}, nil
	}
	if err != nil {
		return manifest.State{}, err
	}
	defer file.Close()
	line, err := journal.LastLine(file)
	if err != nil && !errors.Is(err, io.EOF) {
		return manifest.State{}, err
	}
	state, _ := manifest.Resume(line)
	return state, nil
}

// lastIdentity returns whose the last record is; nobody's if there is none, or it is in a segment that was compressed before the writer
// that has left the stream open had come.
func lastIdentity(dir string) (audit.Identity, error) {
	segments, err := Segments(dir)
	if err != nil {
		return audit.Identity{}, err
	}
	for _, s := range slices.Backward(segments) {
		if s.Compressed() {
			break
		}
		line, err := lastLine(s.Path)
		if err != nil {
			return audit.Identity{}, err
		}
		if line != nil {
			r, err := record.Parse(line)
			if err != nil {
				return audit.Identity{}, err
			}
			return r.Identity, nil
		}
	}
	return audit.Identity{}, nil
}

func lastLine(path string) ([]byte, error) {
	file, err := fsys.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	line, _, err := LastRecord(file, info.Size())
	return line, err
}
