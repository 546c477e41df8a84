// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Status is what /proc/PID/status says of a process, that is of its first thread (proc_pid_status(5)).
type Status struct {
	UID, GID   uint32 // real ones
	Seccomp    uint32 // mode, a SECCOMP_MODE_* number of <linux/seccomp.h>
	Filters    uint32 // 0 before Linux 5.9, which does not tell
	NoNewPrivs bool
}

// ReadStatus reads the status of a process.
func ReadStatus(pid int) (Status, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	text, err := os.ReadFile(path)
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(text)
	if err != nil {
		return Status{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// parseStatus never takes a line for another: the kernel escapes line ends in the name, the one text of the workload's.
func parseStatus(text []byte) (Status, error) {
	var s Status
	var noNewPrivs uint32
	fields := map[string]*uint32{
		"Uid": &s.UID, "Gid": &s.GID, "Seccomp": &s.Seccomp, "NoNewPrivs": &noNewPrivs, "Seccomp_filters": &s.Filters,
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":\t"))
		into := fields[string(name)]
		if into == nil {
			continue
		}
		first, _, _ := bytes.Cut(bytes.TrimSuffix(value, []byte("\n")), []byte("\t"))
		n, err := strconv.ParseUint(string(first), 10, 32)
		if err != nil {
			return Status{}, fmt.Errorf("%s: %w", name, err)
		}
		*into = uint32(n)
		delete(fields, string(name))
	}
	delete(fields, "Seccomp_filters")
	for name := range fields {
		return Status{}, fmt.Errorf("it has no line %s", name)
	}
	s.NoNewPrivs = noNewPrivs != 0
	return s, nil
}
