// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/guest/private"
)

// Private is the directory in the container that belongs to us, in host placement; Guest and Socket are what is there.
const (
	Private = private.Dir
	Guest   = private.Guest
	Socket  = private.Socket
)

// helperMount binds the helper. It must be executable, so no noexec; nosuid does not stop the capabilities that the
// launcher gets from its parent, only those that a file could add.
func helperMount(at, helper string) specs.Mount {
	return specs.Mount{Destination: at, Type: "bind", Source: helper, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"}}
}

// MountPrivate makes [Private] in the container: a read-only tmpfs, and on it the helper and the supervisor's
// rendezvous socket, files of the host, at [Guest] and [Socket].
//
// The three belong together. Were another able to replace the helper, it would run with the launcher's capabilities
// and without a filter. A file that is a mount point can neither be renamed nor unlinked in its own mount
// namespace, but a plain directory around it can be renamed, by whoever may write the root directory. So the
// directory is a mount point too, and read-only, for in another mount namespace that one could have made.
//
// Nor may anything of the pod's be at, under or above Private: a volume there would be shared with containers that can
// rename or unlink the mount point, which detaches the mount (Linux 3.18). This edit sees the specification only,
// and refuses what that shows. An image can hide the same in its root file system, with /.metsuke or a volume's
// destination as a symbolic link; delegates resolve links inside the root file system and mount where they lead. That
// is why [CheckMounted] must follow, when the delegate has made the mounts.
func MountPrivate(helper, socket string) Edit {
	return mountPrivate(Private, false,
		// One inode for the directory, two for the mount points, one spare.
		specs.Mount{Destination: Private, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "mode=711", "size=4k", "nr_inodes=4"}},
		helperMount(Guest, helper),
		// Connecting works through a read-only mount: unix(7) wants write permission on the inode only.
		specs.Mount{Destination: Socket, Type: "bind", Source: socket, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"}},
	)
}

// MountPrivateInGuest is [MountPrivate] for guest placement. The socket is the resident's to make, and Kata's agent makes
// mount points only where it can write; so the tmpfs is writable until the resident has remounted it, which comes before
// any code of the workload. With cgroup the container's own cgroup is there as well, writable, until the resident takes it
// away.
//
// Nobody outside can look at the mounts there before the launcher runs, and it is too late when the launcher is another's
// program. So an image must not be able to lead the directory into a volume, where another container changes things: its
// name, dir, is new for each container (with a random part, so no image has a link of that name), and it is mounted first, on
// the image's own root.
func MountPrivateInGuest(dir private.Name, helper string, cgroup bool) Edit {
	mounts := []specs.Mount{
		// One inode for the directory, one each for helper, cgroup and socket, four spare.
		{Destination: string(dir), Type: "tmpfs", Source: "tmpfs", Options: []string{"rw", "nosuid", "nodev", "mode=755", "size=4k", "nr_inodes=8"}},
		helperMount(dir.GuestPath(), helper),
	}
	if cgroup {
		mounts = append(mounts, specs.Mount{Destination: dir.CgroupPath(), Type: "cgroup", Source: "cgroup", Options: []string{"rw", "nosuid", "nodev", "noexec"}})
	}
	return mountPrivate(dir, true, mounts...)
}

// mountPrivate puts mounts before or after those of the container, which is the order in which delegates make them.
func mountPrivate(dir private.Name, first bool, ours ...specs.Mount) Edit {
	return func(s *Spec) error {
		if err := s.reserve(string(dir)); err != nil {
			return err
		}
		var mounts []json.RawMessage
		if _, err := s.root.get("mounts", &mounts); err != nil {
			return err
		}
		var added []json.RawMessage
		for _, m := range ours {
			if m.Type == "bind" && (!filepath.IsAbs(m.Source) || filepath.Clean(m.Source) != m.Source) {
				return fmt.Errorf("mount %s: the source %q is no clean absolute path", dir, m.Source)
			}
			raw, err := marshal(m)
			if err != nil {
				return err
			}
			added = append(added, raw)
		}
		if first {
			mounts, added = added, mounts
		}
		return s.root.set("mounts", append(mounts, added...))
	}
}

// reserve refuses a pod that has something at, under or above dir.
func (s *Spec) reserve(dir string) error {
	if err := s.eachPath(dir, s.root, "mounts", "destination"); err != nil {
		return err
	}
	linux, err := s.root.child("linux")
	if err != nil {
		return err
	}
	if linux == nil {
		return nil
	}
	return s.eachPath(dir, linux, "devices", "path")
}

func (s *Spec) eachPath(dir string, o *object, list, field string) error {
	var items []json.RawMessage
	if _, err := o.get(list, &items); err != nil {
		return err
	}
	for i, raw := range items {
		item, err := parseObject(fmt.Sprintf("%s.%s[%d]", o.path, list, i), raw)
		if err != nil {
			return err
		}
		var where string
		if _, err := item.get(field, &where); err != nil {
			return err
		}
		// Relative ones (runtime-spec 1.0) are taken from the root.
		if at := path.Clean("/" + where); at == "/" || hasPrefixPath(at, dir) {
			return fmt.Errorf("%s: %q covers %s, which is Metsuke's: use another path in the pod", item.path, where, dir)
		}
	}
	return nil
}
