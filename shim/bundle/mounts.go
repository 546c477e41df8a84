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

// MountHelper binds the helper, the file source of the host, read-only at [Guest].
//
// Were another able to replace the helper, it would run with the launcher's capabilities and without a filter,
// so nothing of the pod's may be at, under or above [Private]: a volume there would be shared with containers
// that can rename or unlink the mount point, which detaches the mount (rename(2) of a mount point of another
// mount namespace, Linux 3.18). This edit sees the specification only, and refuses what that shows. An image
// can hide the same in its root file system, with /.metsuke or a volume's destination as a symbolic link;
// delegates resolve links inside the root file system and mount where they lead. That is why
// [CheckMounted] must follow, when the delegate has made the mounts.
func MountHelper(source string) Edit {
	// The file must be executable, so no noexec; nosuid does not stop the capabilities that the launcher gets
	// from its parent, only those that a file could add.
	return mount(source, Guest, "bind", "rprivate", "ro", "nosuid", "nodev")
}

// MountSocket binds the supervisor's rendezvous socket, the file source of the host, at [Socket]. Connecting
// works through a read-only mount: unix(7) wants write permission on the inode only.
func MountSocket(source string) Edit {
	return mount(source, Socket, "bind", "rprivate", "ro", "nosuid", "nodev", "noexec")
}

func mount(source, destination string, options ...string) Edit {
	return func(s *Spec) error {
		if !filepath.IsAbs(source) || filepath.Clean(source) != source {
			return fmt.Errorf("mount %s: its source %q is no clean absolute path", destination, source)
		}
		if err := s.reserve(); err != nil {
			return err
		}
		raw, err := marshal(specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options})
		if err != nil {
			return err
		}
		var mounts []json.RawMessage
		if _, err := s.root.get("mounts", &mounts); err != nil {
			return err
		}
		// Last: delegates mount in order, and a later one would cover ours.
		return s.root.set("mounts", append(mounts, raw))
	}
}

// reserve refuses a pod that has something at, under or above [Private].
func (s *Spec) reserve() error {
	if s.reserved {
		return nil
	}
	if err := s.eachPath(s.root, "mounts", "destination"); err != nil {
		return err
	}
	linux, err := s.root.child("linux")
	if err != nil {
		return err
	}
	if linux != nil {
		if err := s.eachPath(linux, "devices", "path"); err != nil {
			return err
		}
	}
	s.reserved = true
	return nil
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
