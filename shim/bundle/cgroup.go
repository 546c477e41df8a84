// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"slices"
)

// CgroupsPath returns linux.cgroupsPath as it is: a path, or systemd's slice:prefix:name; empty where there is none.
func (s *Spec) CgroupsPath() (string, error) {
	linux, err := s.root.child("linux")
	if linux == nil || err != nil {
		return "", err
	}
	var path string
	_, err = linux.get("cgroupsPath", &path)
	return path, err
}

// CgroupsReadOnly mounts cgroup file systems read-only. containerd makes them writable for privileged containers, and with a handler's
// cgroup_writable (2.1 and later) for all: the container's own limits are files there, on cgroup v1 always, on v2 unless the file
// system was mounted with nsdelegate (Documentation/admin-guide/cgroup-v2.rst, Delegation).
func CgroupsReadOnly() Edit {
	return func(s *Spec) error {
		var mounts []json.RawMessage
		if _, err := s.root.get("mounts", &mounts); err != nil {
			return err
		}
		changed := false
		for i, raw := range mounts {
			m, err := parseObject(fmt.Sprintf("mounts[%d]", i), raw)
			if err != nil {
				return err
			}
			var kind string
			if _, err := m.get("type", &kind); err != nil {
				return err
			}
			if kind != "cgroup" && kind != "cgroup2" {
				continue
			}
			var options []string
			if _, err := m.get("options", &options); err != nil {
				return err
			}
			readOnly := append(slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "rw" || o == "ro" }), "ro")
			if err := m.set("options", readOnly); err != nil {
				return err
			}
			mounts[i], changed = m.append(nil), true
		}
		if !changed {
			return nil
		}
		return s.root.set("mounts", mounts)
	}
}
