// SPDX-License-Identifier: Apache-2.0

package bundle

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
