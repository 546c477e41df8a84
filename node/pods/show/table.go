// SPDX-License-Identifier: Apache-2.0

// Package show writes pods for people. All that comes from elsewhere is escaped: it may be made to act on a terminal.
package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/pods"
)

// Problems prints what could not be found out of a pod.
func Problems(w io.Writer, p *pods.Pod) bool {
	for _, problem := range p.Problems {
		fmt.Fprintf(w, "metsuke: %s: %s\n", Name(p), timeline.Escape(problem))
	}
	return len(p.Problems) > 0
}

// Name names a pod for people, by its sandbox if it has no name yet.
func Name(p *pods.Pod) string {
	switch {
	case p.Name != "":
		return timeline.Escape(p.Namespace + "/" + p.Name)
	case p.SandboxID != "":
		return timeline.Escape(p.SandboxID)
	}
	return timeline.Escape(p.Shim.Dir)
}

// JSON writes pods, one a line.
func JSON(w io.Writer, list []pods.Pod) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// Table writes a line for each container, or for a pod that has none, in columns.
func Table(w io.Writer, list []pods.Pod, wide bool, now time.Time) error {
	heading := []string{"NAMESPACE", "POD", "CONTAINER", "PROFILE", "PLACEMENT", "DELEGATE", "STATE", "AGE", "EVENTS", "DENIED", "LAST-DENIAL"}
	if wide {
		heading = append(heading, "LOST", "OOMS", "EXECS", "DIGEST", "ID", "SANDBOX", "SHIM", "VERSION")
	}
	var rows [][]string
	for i := range list {
		p := &list[i]
		if len(p.Containers) == 0 {
			none := &pods.Container{State: string(p.State), Created: p.Created}
			rows = append(rows, psRow(p, none, wide, now))
		}
		for j := range p.Containers {
			rows = append(rows, psRow(p, &p.Containers[j], wide, now))
		}
	}
	return terminal.Table(w, heading, rows)
}

func psRow(p *pods.Pod, c *pods.Container, wide bool, now time.Time) []string {
	events, denied := "-", "-"
	if c.Stream != nil {
		events = strconv.FormatUint(c.Stream.Events, 10)
	}
	if n, ok := c.Stream.Denied(); ok {
		denied = strconv.FormatUint(n, 10)
	}
	row := []string{
		cell(p.Namespace), cell(p.Name), cell(c.Name), cell(c.Profile), cell(c.Placement), cell(shortType(p.Delegate.Type)), cell(c.State),
		age(c.Created, now), events, denied, lastDenial(c, now),
	}
	if !wide {
		return row
	}
	lost, ooms, execs := "-", "-", "-"
	if c.Stream != nil && c.Stream.Counts != nil {
		var missing uint64
		for _, l := range c.Stream.Counts.Losses {
			missing += l.Missing
		}
		lost = strconv.FormatUint(missing, 10)
		ooms, execs = strconv.FormatUint(c.Stream.Counts.OOMs, 10), strconv.FormatUint(c.Stream.Counts.Execs, 10)
	}
	shim := "-"
	if p.Shim.PID != 0 {
		shim = strconv.Itoa(p.Shim.PID)
	}
	return append(row, lost, ooms, execs, cell(short(c.ProfileDigest)), cell(short(c.ID)), cell(short(p.SandboxID)), shim, cell(p.Shim.Version))
}

func lastDenial(c *pods.Container, now time.Time) string {
	if c.Stream == nil || c.Stream.LastDenial == nil || c.Stream.LastDenial.Event.Syscall == nil {
		return "-"
	}
	e := &c.Stream.LastDenial.Event
	at := e.Time
	if e.Syscall.Until.After(at) { // of a folded record, its last call
		at = e.Syscall.Until
	}
	return timeline.Escape(e.Syscall.Syscall) + " " + age(at, now) + " ago"
}

// short is the beginning of an id or digest, as containerd's tools show it.
func short(id string) string { return id[:min(len(id), 12)] }

// shortType is a runtime type without what all have: io.containerd.kata-qemu.v2 is kata-qemu.
func shortType(t string) string {
	parts := strings.Split(t, ".")
	if len(parts) == 4 && strings.HasPrefix(t, "io.containerd.") {
		return parts[2]
	}
	return t
}

// age is a time gone by, in its largest unit that is at least two.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(since))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

func cell(s string) string {
	if s == "" {
		return "-"
	}
	return timeline.Escape(s)
}
