// SPDX-License-Identifier: Apache-2.0

package bundle

import "testing"

func TestCgroupsReadOnly(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:              `{}`,
		`{"mounts":null}`: `{"mounts":null}`,
		`{"mounts":[{"destination":"/a","type":"bind","options":["rw"]}]}`:                                                            `{"mounts":[{"destination":"/a","type":"bind","options":["rw"]}]}`,
		`{"mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","rw","nodev"]},{"x":1.0}]}`: `{"mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","nodev","ro"]},{"x":1.0}]}`,
		`{"mounts":[{"type":"cgroup2"}]}`:                                `{"mounts":[{"type":"cgroup2","options":["ro"]}]}`,
		`{"mounts":[{"type":"cgroup","options":["ro","rw","new=1"]}]}`:   `{"mounts":[{"type":"cgroup","options":["new=1","ro"]}]}`,
		`{"mounts":[{"type":"cgroup","options":null},{"type":"tmpfs"}]}`: `{"mounts":[{"type":"cgroup","options":["ro"]},{"type":"tmpfs"}]}`,
	} {
		s := spec(t, in)
		if err := CgroupsReadOnly()(s); err != nil || string(s.root.append(nil)) != want {
			t.Errorf("%s became %s, %v", in, s.root.append(nil), err)
		}
	}
	for _, in := range []string{`{"mounts":{}}`, `{"mounts":[{"type":1}]}`, `{"mounts":[{"type":"cgroup","options":"rw"}]}`, `{"mounts":[{"Type":"cgroup"}]}`} {
		if err := CgroupsReadOnly()(spec(t, in)); err == nil {
			t.Errorf("%s is taken", in)
		}
	}
}
