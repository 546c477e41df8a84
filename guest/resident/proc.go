// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"bytes"
	"fmt"
	"os"
)

// checkProc fails if something is mounted over what /proc says of processes, by which the supervisor knows who makes a call and
// whether a launcher is one. The image can have led a volume of the pod's there, by a symbolic link of the volume's
// destination: Kata's agent looks at the destination before it resolves it (rustjail/src/mount.rs, check_proc_mount). Later it
// takes the right to mount.
func checkProc() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) < 5 {
			return fmt.Errorf("/proc/self/mountinfo has a line %q", line)
		}
		name, inProc := bytes.CutPrefix(fields[4], []byte("/proc/")) // proc(5): the mount point
		if inProc && len(name) > 0 && name[0] >= '0' && name[0] <= '9' {
			return fmt.Errorf("something is mounted at %s, so that /proc does not tell who is who: a volume of the pod whose destination "+
				"the image leads there", fields[4])
		}
	}
	return nil
}
