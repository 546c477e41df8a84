// SPDX-License-Identifier: Apache-2.0

// Package fsys is what package os lacks for directories that somebody else may have filled, and for those that have to outlive the node's power.
package fsys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenRegular opens a regular file for reading. It does not follow a link in the path's last element, and does not block on a pipe (open(2),
// O_NOFOLLOW, O_NONBLOCK); what is no regular file is an error. The error wraps fs.ErrNotExist if there is none.
func OpenRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// SyncDir returns when the names in a directory are on the disk (fsync(2)).
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
