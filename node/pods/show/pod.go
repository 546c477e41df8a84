// SPDX-License-Identifier: Apache-2.0

package show

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/terminal"
	"metsuke.dev/metsuke/node/pods"
)

// podView prints a pod for people. All that comes from elsewhere is escaped.
type podView struct {
	terminal.Printer
	now  time.Time
	bars bool
}

// Pod writes all that is known of a pod. On a terminal shares of limits have bars, and verdicts colours.
func Pod(w io.Writer, p *pods.Pod, now time.Time, onTerminal bool) error {
	v := &podView{terminal.Printer{W: w}, now, onTerminal}
	v.F("%s  %s, %s old\n", Name(p), p.State, age(p.Created, now))
	v.fields([][2]string{
		{"uid", p.UID},
		{"sandbox", p.SandboxID},
		{"delegate", delegateText(&p.Delegate)},
		{"shim", shimText(&p.Shim)},
		{"config", p.Shim.Config},
		{"state", p.Shim.Dir},
	})
	for i := range p.Containers {
		v.container(&p.Containers[i])
	}
	return v.Err
}

// fields prints what is not empty, one a line.
func (v *podView) fields(list [][2]string) {
	for _, f := range list {
		if f[1] != "" {
			v.F("  %-10s %s\n", f[0], timeline.Escape(f[1]))
		}
	}
}

func delegateText(d *pods.Delegate) string {
	text := d.Type
	if text == "" {
		text = "of unknown type"
	}
	text += ", " + d.Binary
	if !d.Alive {
		return text + ", ended"
	}
	return text + ", process " + strconv.Itoa(d.PID)
}

func shimText(s *pods.Shim) string {
	if s.PID == 0 {
		return "does not answer at " + s.Address
	}
	return fmt.Sprintf("%s, process %d, since %s UTC", s.Version, s.PID, s.Started.UTC().Format(time.DateTime))
}

func (v *podView) container(c *pods.Container) {
	v.F("\ncontainer %s  %s\n", timeline.Escape(c.Name), timeline.Escape(stateText(c)))
	v.fields([][2]string{
		{"id", c.ID},
		{"image", c.Image},
		{"profile", c.Profile + " " + short(c.ProfileDigest) + driftText(c)},
		{"placement", c.Placement},
	})
	if c.Stream == nil {
		v.F("  Metsuke changes nothing of it and records nothing.\n")
		v.limits(c)
		return
	}
	v.fields([][2]string{{"receipt", receiptText(c.Receipt)}, {"stream", streamText(c.Stream)}})
	v.limits(c)
	v.calls(c.Stream)
	v.records("exec sessions that run", c.Sessions)
	v.records("requests that were lowered, the newest of each resource", c.Limits)
	v.records("losses, the newest of each reason", c.Losses)
	v.records("last denials", c.Denials)
}

func stateText(c *pods.Container) string {
	text := c.State
	if c.ExitStatus != nil {
		text += " with status " + strconv.FormatUint(uint64(*c.ExitStatus), 10)
	} else if c.PID != 0 {
		text += ", process " + strconv.FormatUint(uint64(c.PID), 10)
	}
	return text
}

func driftText(c *pods.Container) string {
	switch d := c.Drift; {
	case d == nil:
		return ""
	case d.Error != "":
		return "; changed since: a new container would be refused: " + d.Error
	case d.Changed:
		return "; changed since: a new container gets " + d.Profile + " " + short(d.Digest)
	}
	return ", unchanged since"
}

func receiptText(r *pods.Record) string {
	if r == nil || r.Event.Receipt == nil {
		return "none that could be read"
	}
	got := r.Event.Receipt
	text := fmt.Sprintf("filter %s in force (%d in all)", short(got.FilterDigest), got.Filters)
	if got.SeccompMode != 2 {
		text = fmt.Sprintf("seccomp mode %d, no filter", got.SeccompMode)
	}
	if got.NoNewPrivs {
		text += ", no new privileges"
	}
	return text + ", on loss " + got.OnLoss + "; kernel " + got.Kernel + ", Metsuke " + got.Version
}

func streamText(s *pods.Stream) string {
	return fmt.Sprintf("%s; events: %d, bytes: %s, segments: %d", s.Dir, s.Events, size(uint64(max(0, s.Bytes))), s.Segments)
}

// limits prints each limit as it was asked, found at the start, and is now, beside what is used of it.
func (v *podView) limits(c *pods.Container) {
	var rows [][]string
	seen := map[string]bool{}
	if c.Receipt != nil && c.Receipt.Event.Receipt != nil {
		for _, l := range c.Receipt.Event.Receipt.Limits {
			seen[l.Name] = true
			asked := limitText(l.Name, l.Asked)
			if l.BestEffort {
				asked += " (best effort)"
			}
			rows = append(rows, append([]string{cell(l.Name), asked, limitText(l.Name, l.Found)}, v.used(c, l.Name)...))
		}
	}
	for _, name := range []string{cgroups.CPU, cgroups.Memory, cgroups.Pids} {
		if c.Usage != nil && !seen[name] {
			rows = append(rows, append([]string{name, "-", "-"}, v.used(c, name)...))
		}
	}
	if len(rows) > 0 {
		v.F("\n")
		v.Table([]string{"LIMIT", "PROFILE", "AT START", "NOW", "USED"}, rows)
	}
}

// used returns what is in force now and what is used.
func (v *podView) used(c *pods.Container, name string) []string {
	u := c.Usage
	if u == nil {
		return []string{"-", "-"}
	}
	amount := func(used uint64, limit *uint64, text func(uint64) string) []string {
		if limit == nil {
			return []string{"none", text(used)}
		}
		return []string{text(*limit), text(used) + v.share(used, *limit)}
	}
	switch name {
	case cgroups.Memory:
		row := amount(u.Memory, u.MemoryLimit, size)
		row[1] += ", working set " + size(u.WorkingSet)
		return row
	case cgroups.Swap:
		return amount(u.Swap, u.SwapLimit, size)
	case cgroups.Pids:
		return amount(u.Pids, u.PidsLimit, func(n uint64) string { return strconv.FormatUint(n, 10) })
	case cgroups.CPU:
		text := nanoseconds(u.CPU)
		if u.Periods > 0 {
			text += fmt.Sprintf(", throttled in %d of %d periods, for %s", u.ThrottledPeriods, u.Periods, nanoseconds(u.Throttled))
		}
		return []string{"-", text}
	}
	return []string{"-", "-"}
}

// share is how much of a limit is used, with a bar where somebody looks.
func (v *podView) share(used, limit uint64) string {
	const width = 10
	if limit == 0 {
		return ""
	}
	part := min(1, float64(used)/float64(limit))
	text := fmt.Sprintf(" %d%%", int(100*part))
	if !v.bars {
		return text
	}
	full := int(math.Round(width * part))
	return text + " [" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

// limitText shows an amount of memory, and a quota and its period, as profiles write them; what else the receipt has, as it is.
func limitText(name, value string) string {
	var quota, period int64
	if n, err := fmt.Sscanf(value, "%d %d", &quota, &period); name == cgroups.CPU && err == nil && n == 2 && period > 0 && quota < 1<<50 {
		return cgroups.FormatCPU(quota * 1000 / period)
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == cgroups.Memory || name == cgroups.MemoryHigh || name == cgroups.Swap) {
		return cgroups.FormatBytes(n)
	}
	return cell(value)
}

func nanoseconds(n uint64) string {
	return time.Duration(min(n, math.MaxInt64)).Round(time.Millisecond).String()
}

// size is a number of bytes, rounded down.
func size(n uint64) string {
	units := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi"}
	f, i := float64(n), 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return strconv.FormatUint(n, 10)
	}
	return strconv.FormatFloat(math.Floor(10*f)/10, 'f', -1, 64) + units[i]
}

// calls prints what was counted.
func (v *podView) calls(s *pods.Stream) {
	if s.Counts == nil {
		return
	}
	v.F("\ncounted %s; records: %d, exec sessions: %d, OOM kills: %d\n", map[pods.Counted]string{
		pods.Instance: "since the container was created", pods.Since: "since the time that was given",
		pods.Newest: "in the newest part of the stream",
	}[s.Counted], s.Counts.Records, s.Counts.Execs, s.Counts.OOMs)
	verdicts := []audit.Verdict{audit.VerdictAllowed, audit.VerdictDenied, audit.VerdictKilled}
	classes := map[string][]string{}
	var order []string
	for _, n := range s.Counts.Calls {
		row := classes[n.Class]
		if row == nil {
			row = []string{cell(n.Class), "0", "0", "0"}
			classes[n.Class] = row
			order = append(order, n.Class)
		}
		if i := slices.Index(verdicts, n.Verdict); i >= 0 {
			row[1+i] = strconv.FormatUint(n.Count, 10)
		}
	}
	var rows [][]string
	for _, class := range order {
		rows = append(rows, classes[class])
	}
	if len(rows) > 0 {
		v.Table([]string{"CLASS", "ALLOWED", "DENIED", "KILLED"}, rows)
	}
	rows = nil
	for _, r := range s.Counts.Denials {
		rows = append(rows, []string{cell(r.Origin), cell(r.RuleID), strconv.FormatUint(r.Count, 10)})
	}
	if len(rows) > 0 {
		v.F("\n")
		v.Table([]string{"DENIED BY", "RULE", "CALLS"}, rows)
	}
}

// records prints records as the timeline does.
func (v *podView) records(heading string, list []*pods.Record) {
	if len(list) == 0 {
		return
	}
	v.F("\n%s:\n", heading)
	p := timeline.Printer{Color: v.bars}
	for _, r := range list {
		v.F("%s", p.Append(nil, &r.Record))
	}
}
