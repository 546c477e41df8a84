// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Private is the directory in the container that belongs to us; Guest and Socket are what is mounted there.
const (
	Private = "/.metsuke"
	Guest   = Private + "/guest"
	Socket  = Private + "/sock"
)

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
	return func(s *Spec) error {
		for _, source := range []string{helper, socket} {
			if !filepath.IsAbs(source) || filepath.Clean(source) != source {
				return fmt.Errorf("mount %s: the source %q is no clean absolute path", Private, source)
			}
		}
		if err := s.reserve(); err != nil {
			return err
		}
		var mounts []json.RawMessage
		if _, err := s.root.get("mounts", &mounts); err != nil {
			return err
		}
		// Last, in this order: delegates mount in order, and a later one would cover ours.
		for _, m := range []specs.Mount{
			// One inode for the directory, two for the mount points, one spare.
			{Destination: Private, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "mode=711", "size=4k", "nr_inodes=4"}},
			// The helper must be executable, so no noexec; nosuid does not stop the capabilities that the
			// launcher gets from its parent, only those that a file could add.
			{Destination: Guest, Type: "bind", Source: helper, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"}},
			// Connecting works through a read-only mount: unix(7) wants write permission on the inode only.
			{Destination: Socket, Type: "bind", Source: socket, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"}},
		} {
			raw, err := marshal(m)
			if err != nil {
				return err
			}
			mounts = append(mounts, raw)
		}
		return s.root.set("mounts", mounts)
	}
}

// reserve refuses a pod that has something at, under or above [Private].
func (s *Spec) reserve() error {
	if err := s.eachPath(s.root, "mounts", "destination"); err != nil {
		return err
	}
	linux, err := s.root.child("linux")
	if err != nil {
		return err
	}
	if linux == nil {
		return nil
	}
	return s.eachPath(linux, "devices", "path")
}

func (s *Spec) eachPath(o *object, list, field string) error {
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
		if at := path.Clean("/" + where); at == "/" || hasPrefixPath(at, Private) {
			return fmt.Errorf("%s: %q covers %s, which is Metsuke's: use another path in the pod", item.path, where, Private)
		}
	}
	return nil
}
