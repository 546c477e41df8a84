// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"

	"metsuke.dev/metsuke/cgroups/inside"
	"metsuke.dev/metsuke/guest/channel"
)

// pendingControls is how many Controls may wait for one that takes long, before acknowledgements wait too.
const pendingControls = 16

// takeCgroup opens the files of the container's cgroup, hides them from the workload, and puts the first settings in force.
func (r *resident) takeCgroup(start *channel.Start) (err error) {
	if !start.Cgroup {
		return r.applySettings(start.Settings)
	}
	if r.group, err = inside.Open(r.dir.CgroupPath()); err != nil {
		return err
	}
	r.watch = start.Watch
	if err := r.dir.DropCgroup(); err != nil {
		return err
	}
	return r.applySettings(start.Settings)
}

// readCgroup reads back what is in force. A setting that the kernel does not take is a problem of its file's value: whether it
// can be done without is not for us.
func (r *resident) readCgroup() []channel.Value {
	if r.group == nil {
		return nil
	}
	var values []channel.Value
	for _, v := range r.group.Read(r.watch) {
		values = append(values, channel.Value(v))
	}
	return values
}

// control answers the Controls, one by one, for the kernel may take its time to lower a limit.
func (r *resident) control() {
	for m := range r.controls {
		report := channel.Report{ID: m.ID}
		err := r.applySettings(m.Settings)
		if m.Helper {
			err = errors.Join(err, r.checkHelper())
		}
		if err != nil {
			report.Problem = err.Error()
		}
		report.Values = r.readCgroup()
		r.tell(report)
	}
}

func (r *resident) applySettings(settings []channel.Setting) error {
	if len(settings) == 0 {
		return nil
	}
	if r.group == nil {
		return errors.New("there are limits to be set, and no cgroup to set them in")
	}
	lines := make([]inside.Setting, len(settings))
	for i, s := range settings {
		lines[i] = inside.Setting(s)
	}
	r.group.Apply(lines)
	return nil
}
