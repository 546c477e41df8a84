// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// The functions here fill in what a class of events has beside what all have.

func fillExec(e *event, r *record.Record) {
	c := r.Event.Syscall
	p, _ := pathOf(c, "path")
	e.LaunchTypeID, e.LaunchType = pointer(3), "Exec"
	e.Process = &process{PID: c.PID, File: fileOf(p), CmdLine: text(valueOf(c, "argv")), Parent: e.Actor.Process.Parent}
	e.Process.File.TypeID, e.Process.File.Type = 8, "Executable File"
	identify(e.Process, e)
}

// fillFork names the child by the call that makes it: its number is not known yet.
func fillFork(e *event, _ *record.Record) {
	e.LaunchTypeID, e.LaunchType = pointer(2), "Fork"
	e.Process = &process{UID: e.Metadata.UID, Parent: e.Actor.Process}
}

func fillOwnProcess(e *event, _ *record.Record) { e.Process = e.Actor.Process }

// identify gives a process without a number a name, as OCSF demands one.
func identify(p *process, e *event) {
	if p.PID == 0 && p.UID == "" {
		p.UID = e.Metadata.UID
	}
}

func targetOf(c *audit.Syscall) uint32 {
	pid, err := strconv.ParseInt(valueOf(c, "pid"), 10, 32)
	if err != nil || pid <= 0 { // a group, or all
		return 0
	}
	return uint32(pid)
}

func hasTarget(e *audit.Event) bool { return targetOf(e.Syscall) != 0 }

func isFatal(e *audit.Event) bool {
	for word := range strings.FieldsSeq(fatalWords) {
		if valueOf(e.Syscall, "signal") == word {
			return hasTarget(e)
		}
	}
	return false
}

// fillTarget names the process that a call acts on, by the number that its caller knows it by.
func fillTarget(e *event, r *record.Record) { e.Process = &process{PID: targetOf(r.Event.Syscall)} }

func fillMemory(e *event, r *record.Record) {
	e.Process = e.Actor.Process
	e.BaseAddress = text(valueOf(r.Event.Syscall, "addr"))
	if n, err := strconv.ParseInt(valueOf(r.Event.Syscall, "length"), 10, 64); err == nil {
		e.Size = uint64(n)
	}
}

func fillFile(name string) func(*event, *record.Record) {
	return func(e *event, r *record.Record) {
		p, _ := pathOf(r.Event.Syscall, name)
		e.File = fileOf(p)
		if e.ActivityID == 1 {
			e.CreateMask = text(valueOf(r.Event.Syscall, "mode"))
		}
		switch r.Event.Syscall.Syscall {
		case "mkdir", "mkdirat", "rmdir":
			e.File.TypeID, e.File.Type = 2, "Folder"
		case "symlink", "symlinkat":
			e.File.TypeID, e.File.Type = 7, "Symbolic Link"
		}
	}
}

func fillRename(e *event, r *record.Record) {
	from, _ := pathOf(r.Event.Syscall, "from")
	e.File = fileOf(from)
	if to, ok := pathOf(r.Event.Syscall, "to"); ok {
		e.FileResult = fileOf(to)
	}
}

// endpoints sets the workload's own end, and the other one if the call names it.
func (e *event) endpoints(r *record.Record, direction int, name string) (own, named *endpoint) {
	own = &endpoint{Name: text(r.Identity.Namespace + "/" + r.Identity.Pod)}
	e.ConnectionInfo = &connectionInfo{DirectionID: direction, Direction: name}
	for i := range r.Event.Syscall.Args {
		a := &r.Event.Syscall.Args[i]
		if !a.IsAddress() || a.Value == "" {
			continue
		}
		at, err := netip.ParseAddrPort(a.Value)
		if err != nil {
			return own, &endpoint{Name: text(a.Value)}
		}
		ip := at.Addr().Unmap().WithZone("")
		e.ConnectionInfo.ProtocolVerID = 6
		if ip.Is4() {
			e.ConnectionInfo.ProtocolVerID = 4
		}
		return own, &endpoint{IP: ip.String(), Port: at.Port()}
	}
	return own, nil
}

func fillOutbound(e *event, r *record.Record) {
	e.SrcEndpoint, e.DstEndpoint = e.endpoints(r, 2, "Outbound")
}

func fillInbound(e *event, r *record.Record) {
	e.DstEndpoint, e.SrcEndpoint = e.endpoints(r, 1, "Inbound")
}

func fillBind(e *event, r *record.Record) {
	own, named := e.endpoints(r, 1, "Inbound")
	if named == nil {
		named = own
	} else if named.IP != "" {
		named.Name = own.Name
	}
	e.DstEndpoint = named
}

func fillKernel(e *event, r *record.Record) {
	name := text(r.Event.Syscall.Syscall)
	e.Kernel = &kernel{Name: name, TypeID: 2, Type: "System Call", SystemCall: name}
}

// fillApp names the workload of a container as the application.
func fillApp(e *event, r *record.Record) { e.App = &product{Name: text(r.Identity.Container)} }

func fillStart(e *event, r *record.Record) {
	fillApp(e, r)
	receipt := r.Event.Receipt
	if receipt.Image != "" {
		e.Device.Container.Image = &image{Name: text(receipt.Image), UID: text(receipt.Image)}
	}
	e.status(1, "Success")
	type limit struct {
		Name       text `json:"name"`
		Asked      text `json:"asked"`
		Found      text `json:"found"`
		BestEffort bool `json:"bestEffort,omitempty"`
	}
	limits := []limit{}
	for _, l := range receipt.Limits {
		limits = append(limits, limit{text(l.Name), text(l.Asked), text(l.Found), l.BestEffort})
	}
	e.Unmapped.Record = map[string]any{
		"version": text(receipt.Version), "kernel": text(receipt.Kernel), "placement": text(receipt.Placement), "delegate": text(receipt.Delegate),
		"image": text(receipt.Image), "pid": receipt.PID, "seccompMode": receipt.SeccompMode, "filters": receipt.Filters,
		"filterDigest": text(receipt.FilterDigest), "noNewPrivs": receipt.NoNewPrivs, "onLoss": text(receipt.OnLoss), "limits": limits,
		"durability": text(receipt.Durability), "flushInterval": receipt.FlushInterval,
	}
}

func fillSession(e *event, r *record.Record) {
	x := r.Event.ExecStart
	var words []text
	var line []string
	for _, word := range x.Argv {
		words, line = append(words, text(word)), append(line, word)
	}
	e.Actor = &actor{Session: &session{UID: text(r.Event.Exec)}}
	e.Process = &process{
		PID: x.PID, CmdLine: text(strings.Join(line, " ")),
		User: &user{strconv.FormatUint(uint64(x.UID), 10)}, Group: &user{strconv.FormatUint(uint64(x.GID), 10)},
	}
	identify(e.Process, e)
	e.LaunchTypeID, e.LaunchType = pointer(1), "Spawn"
	e.status(1, "Success")
	e.Unmapped.Record = map[string]any{
		"argv": words, "truncated": x.Truncated, "terminal": x.Terminal, "seccompMode": x.SeccompMode, "filters": x.Filters, "noNewPrivs": x.NoNewPrivs,
	}
}

func fillLimit(e *event, r *record.Record) {
	fillApp(e, r)
	l := r.Event.Limit
	e.severity(low)
	e.status(1, "Success")
	e.action(4, "Modified", 11, "Corrected")
	e.Unmapped.Record = map[string]text{
		"operation": text(l.Operation), "resource": text(l.Resource), "requested": text(l.Requested), "ceiling": text(l.Ceiling), "applied": text(l.Applied),
	}
}

func fillOOM(e *event, r *record.Record) {
	e.severity(medium)
	e.StatusDetail = "the kernel killed processes for want of memory"
	e.Count = r.Event.OOM.Count
	e.Unmapped.Record = map[string]uint64{"count": r.Event.OOM.Count, "memoryLimit": r.Event.OOM.MemoryLimit}
}

func fillLoss(e *event, r *record.Record) {
	l := r.Event.Loss
	e.severity(high)
	e.IsAlert = true
	e.LogName, e.LogProvider = e.Metadata.LogName, "Metsuke"
	e.StatusCode, e.StatusDetail = text(l.Reason), text(l.Detail)
	e.status(2, "Failure")
	unmapped := map[string]any{
		"reason": text(l.Reason), "count": l.Count, "bytes": l.Bytes, "onLoss": text(l.OnLoss), "detail": text(l.Detail),
	}
	if !l.Until.IsZero() {
		unmapped["from"], unmapped["until"], unmapped["flushInterval"] = l.From, l.Until, l.FlushInterval
	}
	e.Unmapped.Record = unmapped
}

func fillExit(e *event, r *record.Record) {
	x := r.Event.Exit
	if e.ClassUID == processActivity.UID {
		e.Actor = &actor{Session: &session{UID: text(r.Event.Exec)}}
		e.Process = &process{UID: text(r.Event.Exec)}
		e.ExitCode = &x.Status
	} else {
		fillApp(e, r)
	}
	e.status(1, "Success")
	e.StatusCode = text(fmt.Sprint(x.Status))
	if x.Status != 0 {
		e.status(2, "Failure")
	}
	e.StatusDetail = text(strings.TrimSpace(x.Signal + " " + x.Cause))
	if x.Cause != "" {
		e.severity(medium)
	}
	e.Unmapped.Record = map[string]any{"status": x.Status, "signal": text(x.Signal), "cause": text(x.Cause)}
}
