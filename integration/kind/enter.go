// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// Enter is [stand.Enter] for programs of this package. Outside it waits until no other such program runs, and decides on the nodes'
// image.
func Enter() { stand.EnterPrepared(prepare) }

// cacheDir is where Docker's data root and the nodes' image are kept between runs.
func cacheDir() string { return filepath.Join(stand.CacheDir(), "kind") }

// prepare lets one program run at a time, because there is one data root, records the machine's sysctls, and looks for kind's own
// image. The tool sets are those that Docker and its nodes are made of, Helm, and the definitions of others' kinds that tests apply.
func prepare() (sets []string, release func() error, err error) {
	unlock, err := lock(filepath.Join(cacheDir(), "lock"))
	if err != nil {
		return nil, nil, err
	}
	kept := &sysctls{root: "/proc/sys", record: "/run/metsuke-kind-sysctls"}
	if err := kept.keep(); err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	sets = []string{"docker", "containerd1", "runc", "critools", "kind", "helm", "crds"}
	if !fetchStock() {
		sets = append(sets, nodeSets...)
	}
	return sets, func() error { return errors.Join(kept.restore(), unlock()) }, nil
}

// lock waits for the lock, which ends with the process at the latest.
func lock(path string) (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintln(os.Stderr, "kind: waiting for another run to end")
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file.Close, nil
}
