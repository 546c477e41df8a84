// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

func checkDirectories(_ context.Context, s *survey) []Finding {
	return s.each(func(u *setup) []Finding {
		audit, state := u.config.Directories.Audit, u.config.Directories.State
		return append(about(audit, s.judgeAudit(u, audit)), about(state, s.judgeState(u, state))...)
	})
}

// nearest is a path if it exists, or else the nearest directory above it that does.
func (n *Node) nearest(dir string) string {
	for ; dir != "/"; dir = path.Dir(dir) {
		if _, err := n.Tree.Stat(dir); err == nil {
			break
		}
	}
	return dir
}

// judgeDirectory looks at what every directory of ours needs. That it is not there is no fault, since shims make it, if they can.
func (s *survey) judgeDirectory(dir, breaks string) (found []Finding) {
	st, err := s.Tree.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return []Finding{fail(err.Error(), breaks, "make it a directory that root can use")}
	case !st.IsDir():
		return []Finding{fail("it is not a directory", breaks, "move it away, or name another directory")}
	case !s.ownedByRoot(st):
		found = append(found, fail("it does not belong to root", breaks, "chown root: "+dir))
	case st.Mode().Perm()&0o022 != 0:
		found = append(found, fail(fmt.Sprintf("it is writable by others: mode %#o", st.Mode().Perm()),
			"who can write there can take streams away, or put others in their place",
			"chmod 0700 "+dir).by(func(context.Context) (string, error) { return s.chmod(dir, 0o700) }))
	}
	there := s.nearest(dir)
	if fsys, err := s.Statfs(there); err == nil && fsys.Flags&unix.ST_RDONLY != 0 {
		return append(found, fail(there+" is on a file system that is mounted read-only",
			breaks,
			"mount -o remount,rw, or name another directory"))
	}
	if errors.Is(err, fs.ErrNotExist) && len(found) == 0 {
		found = append(found, ok("it is not there yet: the first pod makes it").
			by(func(context.Context) (string, error) { return s.makeDirectory(dir) }))
	}
	return found
}

// makeDirectory makes a directory and those above it as shims do.
func (n *Node) makeDirectory(dir string) (string, error) {
	if _, err := n.Tree.Stat(path.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
		if _, err := n.makeDirectory(path.Dir(dir)); err != nil {
			return "", err
		}
	}
	return "made " + dir + ", mode 0700", n.Tree.Mkdir(dir, 0o700)
}

// Below leastSpace calls wait for the disk soon; below these many segments somebody should look.
const (
	leastSpace   = 16 << 20 // bytes
	leastInodes  = 64
	fewSegments  = 8
	fewInodes    = 4096
	socketLength = len("/0123456789abcdef0123456789abcdef/events.sock") // what a shim puts below the state directory
	maxSocket    = 107                                                  // sun_path less its end, unix(7)
)

func (s *survey) judgeAudit(u *setup, dir string) []Finding {
	found := s.judgeDirectory(dir, "no container starts: its stream cannot be written")
	fsys, err := s.Statfs(s.nearest(dir))
	if err != nil {
		return found
	}
	const breaks = "audited calls wait for space, and after the profile's stallTimeout containers are killed, or go on unrecorded"
	const fix = "make room, or move directories.audit to a larger file system"
	free := int64(fsys.Bavail) * fsys.Bsize
	low := max(fewSegments*u.config.Audit.SegmentSize, leastSpace)
	text := fmt.Sprintf("%d MiB and %d inodes are free", free>>20, fsys.Ffree)
	inodes := fsys.Files > 0 // some file systems have no fixed number
	switch {
	case free < leastSpace || inodes && fsys.Ffree < leastInodes:
		found = append(found, fail(text, breaks, fix))
	case free < low || inodes && fsys.Ffree < fewInodes:
		found = append(found, warn(text, "soon "+breaks, fix))
	}
	if fsys.Type == unix.TMPFS_MAGIC || fsys.Type == unix.RAMFS_MAGIC {
		found = append(found, warn("it is in memory", "streams are gone after a reboot", "name a directory on a disk: directories.audit"))
	}
	if len(found) == 0 {
		return []Finding{ok("%d MiB free", free>>20)}
	}
	return found
}

func (s *survey) judgeState(u *setup, dir string) []Finding {
	if len(dir)+socketLength > maxSocket {
		return []Finding{fail(fmt.Sprintf("its path has %d bytes", len(dir)), "no pod starts: the path of its socket is too long",
			fmt.Sprintf("name a directory of at most %d bytes: directories.state", maxSocket-socketLength)).at(u.path, 0)}
	}
	found := s.judgeDirectory(dir, "no pod starts: its state cannot be written")
	fsys, err := s.Statfs(s.nearest(dir))
	if err == nil && fsys.Type != unix.TMPFS_MAGIC && fsys.Type != unix.RAMFS_MAGIC {
		found = append(found, warn("it is not on a tmpfs",
			"after a reboot the state of pods that are gone is still there",
			"name a directory below /run: directories.state").at(u.path, 0))
	}
	if len(found) == 0 {
		return []Finding{ok("on a tmpfs")}
	}
	return found
}
