// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// diskVariable is a directory on the machine's disk, in the environment of the program inside: all that is the stand's is in memory.
const diskVariable = "METSUKE_BENCH_DISK"

// prepare makes the directory, outside, and removes it when all has ended.
func prepare(setup *stand.Setup) func() (sets []string, release func() error, err error) {
	return func() ([]string, func() error, error) {
		dir, err := os.MkdirTemp("/var/tmp", "metsuke-bench-")
		if err != nil {
			return nil, nil, err
		}
		return setup.Tools(), func() error { return os.RemoveAll(dir) }, os.Setenv(diskVariable, dir)
	}
}

// onDisk makes a directory there.
func onDisk(name string) (string, error) { return os.MkdirTemp(os.Getenv(diskVariable), name+"-") }

// streamsOnDisk has pods of handler opens begin their streams in an empty directory on the disk, until release, which removes them. No
// pod of the handler may run before or after.
func (b *bench) streamsOnDisk() (release func() error, err error) {
	dir, err := onDisk("streams")
	if err != nil {
		return nil, err
	}
	root := b.AuditDir(b.opens)
	if err := unix.Mount(dir, root, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount %s on %s: %w", dir, root, err)
	}
	return func() error {
		return errors.Join(unix.Unmount(root, unix.MNT_DETACH), os.RemoveAll(dir))
	}, nil
}
