// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/guest/rendezvous"
)

// outcome is how a process that cannot run its executable ends.
type outcome struct {
	Refused string // what runc says, or the launcher: the container or the session does not start
	Status  int    // else: how it exits
	Stderr  string
}

// TestFailures holds that an executable that cannot be run fails with the same words and at the same
// time as with runc alone: before the process counts as started, or after. (Before, runc alone fails
// Create, and we fail Start.)
func TestFailures(t *testing.T) {
	tests := map[string]struct {
		arg0 string
		path string // PATH, if not /bin
	}{
		"not in PATH":                 {arg0: "nothing"},
		"empty":                       {arg0: ""},
		"dot":                         {arg0: "."},
		"no PATH":                     {arg0: "probe", path: "-"},
		"PATH is empty":               {arg0: "probe", path: "="},
		"relative directory in PATH":  {arg0: "probe", path: "../bin"},
		"directory in PATH":           {arg0: "dir", path: "/"},
		"missing":                     {arg0: "/bin/nothing"},
		"missing, with quotes":        {arg0: "/bin/\"no\"\n\x01thing"},
		"below a file":                {arg0: "/bin/probe/x"},
		"directory":                   {arg0: "/dir"},
		"not executable":              {arg0: "/bin/plain"},
		"not executable, in PATH":     {arg0: "plain"},
		"loop of links":               {arg0: "/bin/loop"},
		"name too long":               {arg0: "/" + strings.Repeat("x", 300)},
		"empty file":                  {arg0: "/bin/empty"},
		"no format":                   {arg0: "garbage"},
		"interpreter missing":         {arg0: "/bin/badinterp"},
		"interpreter is a directory":  {arg0: "badinterp2"},
		"script with the probe":       {arg0: "/bin/script"},
		"interpreter of interpreters": {arg0: "/bin/script2"},
	}
	for name, test := range tests {
		for _, uid := range []uint32{0, 4242} {
			for _, exec := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, uid %d, exec %v", name, uid, exec), func(t *testing.T) {
					t.Parallel()
					edit := func(p *specs.Process) {
						p.Args = []string{test.arg0, "once"}
						p.User.UID, p.User.GID = uid, uid
						p.Capabilities = capSets(nil, nil)
						switch test.path {
						case "":
							p.Env = []string{"PATH=/bin"}
						case "-":
							p.Env = []string{"A=b"}
						default:
							p.Env = []string{"PATH=" + strings.TrimPrefix(test.path, "=")}
						}
					}
					alone := end(t, newWorld(t, false), exec, edit)
					launched := end(t, newWorld(t, true), exec, edit)
					if diff := cmp.Diff(alone, launched); diff != "" {
						t.Errorf("(-alone +launched):\n%s", diff)
					}
				})
			}
		}
	}
}

// end runs a process to its end, as a container's init or as a session in a container of the probe.
func end(t *testing.T, w *world, exec bool, edit func(*specs.Process)) outcome {
	t.Helper()
	w.file("bin/plain", []byte("#!/bin/probe\n"), 0o644)
	w.file("bin/empty", nil, 0o755)
	w.file("bin/garbage", []byte("\x00\x01garbage"), 0o755)
	w.file("bin/badinterp", []byte("#!/bin/nothing\n"), 0o755)
	w.file("bin/badinterp2", []byte("#!/dir\n"), 0o755)
	w.file("bin/script", []byte("#!/bin/probe x\n"), 0o755)
	w.file("bin/script2", []byte("#!/bin/script2\n"), 0o755)
	w.link("bin/loop", "loop")
	spec := baseSpec()
	spec.Linux.CgroupsPath = w.cgroup()
	init := *spec.Process
	if !exec {
		edit(spec.Process)
	}
	p, err := w.create(spec)
	if err == nil {
		err = w.start(p)
	}
	if exec {
		w.must(err)
		p.report()
		edit(&init)
		p, err = w.exec(&init)
	}
	if err != nil {
		return outcome{Refused: refusal(t, err)}
	}
	var o outcome
	o.Status, o.Stderr = p.wait()
	return o
}

// refusal returns the words that are the same with and without us.
func refusal(t *testing.T, err error) string {
	t.Helper()
	if told, ok := errors.AsType[*rendezvous.ExecError](err); ok {
		if !told.Workload() {
			t.Errorf("not the workload's fault: %v", err)
		}
		return told.Error()
	}
	text := strings.TrimSuffix(err.Error(), ": exit status 1")
	text = strings.TrimSuffix(text, ": exit status 255")
	for _, prefix := range []string{"runc create failed: ", "exec failed: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}
