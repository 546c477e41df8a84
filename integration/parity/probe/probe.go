// SPDX-License-Identifier: Apache-2.0

// Package probe is the workload that tells all that it can find out about itself, so that a run with Metsuke and one without can
// be compared: identity, capabilities, limits, signals, descriptors, environment.
package probe

import (
	_ "embed" // of the source
	"fmt"
	"os/exec"
	"strings"
)

//go:embed testdata/probe.c
var source string

// Build compiles the probe, statically, to a path. It needs a C compiler with a static libc.
func Build(path string) error {
	cmd := exec.Command("cc", "-static", "-O1", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the probe: %w\n%s", err, out)
	}
	return nil
}

// End is the last line of a report.
const End = "\nend\n"

// Read turns a report into what must be alike in two runs, by name: without what chance decides. first says that the process is
// the first of its pid namespace, and so has the same numbers in both. replace are pairs of what differs, such as the names of
// cgroups, and what is put in its place.
func Read(report string, first bool, replace ...string) map[string]string {
	same := strings.NewReplacer(replace...)
	out := map[string]string{}
	for line := range strings.Lines(report) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			continue
		}
		switch name {
		case "status.SigQ", "status.VmPeak", "status.VmSize", "status.VmHWM", "status.VmRSS", "status.RssAnon",
			"status.RssFile", "status.RssShmem", "status.VmData", "status.VmStk", "status.VmPTE",
			"status.voluntary_ctxt_switches", "status.nonvoluntary_ctxt_switches":
			continue // chance
		case "pid", "ppid", "status.Pid", "status.PPid", "status.Tgid", "status.NSpid", "status.NStgid",
			"status.NSpgid", "status.NSsid":
			if !first {
				continue // an exec session's, for the launcher's threads have taken numbers, or the host's
			}
		}
		value = same.Replace(value)
		if strings.HasPrefix(name, "fd.") {
			if before, _, ok := strings.Cut(value, " link pipe:"); ok {
				value = before + " link pipe"
			}
		}
		out[name] = value
	}
	return out
}
