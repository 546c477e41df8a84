// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/cgroups/inside"
)

// maxReported bounds the text of one file that a guest reports.
const maxReported = 4096

// guest is the view from inside a container: cgroup v2, and no cgroup but its own.
var guest = Host{Version: V2, unified: mount{root: "/", point: "/"}}

// Files names the files of cgroup v2 that [Reported] needs for the limits.
func (l Limits) Files() []string {
	var files []string
	rb := readBack{host: &guest, text: "0::/", read: func(name string) (string, error) {
		files = append(files, path.Base(name))
		return "", errors.New("only its name is wanted")
	}}
	_ = rb.all(l) // that no file could be read is what we know
	slices.Sort(files)
	return slices.Compact(files)
}

// Reported is [Host.ReadBack] from what a process inside the container's cgroup (v2) reported of its files. It may be a lie,
// but not of another form: each limit ends up with a value such as ReadBack's or with a reason. A limit that is not one of l,
// so that nobody compares it, is an error if it could not be set; but for swap, which CRI limits wherever the node has some,
// and of which a guest's kernel may know nothing.
func Reported(values []inside.Value, l Limits) ([]Found, error) {
	var refused []error
	compared := l.Files()
	for _, v := range values {
		if v.Problem != "" && limitOf(v.File) != Swap && !slices.Contains(compared, v.File) {
			_, err := reported([]inside.Value{v}, v.File)
			refused = append(refused, err)
		}
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("a limit of the container's own cannot be put in force: %w", errors.Join(refused...))
	}
	rb := readBack{host: &guest, text: "0::/", read: func(name string) (string, error) {
		return reported(values, path.Base(name))
	}}
	if err := rb.all(l); err != nil {
		return nil, fmt.Errorf("read back what was reported: %w", err)
	}
	return rb.found, nil
}

func reported(values []inside.Value, file string) (string, error) {
	i := slices.IndexFunc(values, func(v inside.Value) bool { return v.File == file })
	if i < 0 {
		return "", fmt.Errorf("%s was not reported", file)
	}
	if v := values[i]; v.Problem != "" {
		return "", fmt.Errorf("%s: %s", file, ascii(v.Problem[:min(len(v.Problem), maxReported)]))
	}
	text := values[i].Text
	lines := text
	if file == "io.max" { // the one that has several
		lines = strings.ReplaceAll(text, "\n", " ")
	}
	if len(text) > maxReported || ascii(lines) != lines {
		return "", fmt.Errorf("%s was reported with what it cannot have", file)
	}
	return text, nil
}

// ascii replaces everything that is no printable ASCII.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// WithoutTasks takes the supervisor's own tasks, which are in the container's cgroup too, out of the pids limits that were
// found, so that they compare with what was asked. It changes found.
func WithoutTasks(found []Found, tasks int64) []Found {
	for i := range found {
		if found[i].Resource == Pids {
			found[i].Value, found[i].Effective = less(found[i].Value, tasks), less(found[i].Effective, tasks)
		}
	}
	return found
}

func less(value string, tasks int64) string {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return value // max, or nothing
	}
	return plain(max(0, n-tasks))
}

// Merge returns the settings that are in force after update was applied over old, for applying all of them again: a later
// one stands for an earlier one of the same file, and in io.max of the same device and rate.
func Merge(old, update []inside.Setting) []inside.Setting {
	what := func(s inside.Setting) string {
		if s.File != "io.max" {
			return s.File
		}
		key, _, _ := strings.Cut(s.Value, "=")
		return s.File + " " + key
	}
	var out []inside.Setting
	for _, s := range slices.Concat(old, update) {
		if i := slices.IndexFunc(out, func(o inside.Setting) bool { return what(o) == what(s) }); i >= 0 {
			out[i] = s
		} else {
			out = append(out, s)
		}
	}
	return out
}
