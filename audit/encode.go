// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strconv"
	"time"
)

// AppendJSON appends the event as one JSON object, without a newline, and returns the extended slice.
// Fields come in the fixed order of Fields. It allocates only to grow dst, and is valid JSON, safe to
// print to a terminal, whatever bytes the strings hold. The stream's writer adds the field "chain".
func (e *Event) AppendJSON(dst []byte, id *Identity, seq uint64) []byte {
	dst = appendHead(dst, e, seq)
	dst = appendWho(dst, id)
	dst = appendName(dst, `,"exec":`, e.Exec)
	dst = appendProfile(dst, id)
	return e.appendRest(dst)
}

// Encoder encodes the events of one stream: its identity is rendered once. Safe for concurrent use.
type Encoder struct{ who, profile []byte }

// NewEncoder returns the encoder of a stream.
func NewEncoder(id Identity) *Encoder {
	return &Encoder{who: appendWho(nil, &id), profile: appendProfile(nil, &id)}
}

// AppendJSON does what Event.AppendJSON does with the encoder's identity, for less.
func (enc *Encoder) AppendJSON(dst []byte, e *Event, seq uint64) []byte {
	dst = appendHead(dst, e, seq)
	dst = append(dst, enc.who...)
	dst = appendName(dst, `,"exec":`, e.Exec)
	dst = append(dst, enc.profile...)
	return e.appendRest(dst)
}

func appendHead(dst []byte, e *Event, seq uint64) []byte {
	dst = append(dst, `{"v":1,"time":`...)
	dst = appendTime(dst, e.Time)
	return appendUint(dst, `,"seq":`, seq)
}

func appendWho(dst []byte, id *Identity) []byte {
	dst = appendName(dst, `,"node":`, id.Node)
	dst = appendName(dst, `,"namespace":`, id.Namespace)
	dst = appendName(dst, `,"pod":`, id.Pod)
	dst = appendName(dst, `,"podUID":`, id.PodUID)
	dst = appendName(dst, `,"container":`, id.Container)
	return appendName(dst, `,"containerID":`, id.ContainerID)
}

func appendProfile(dst []byte, id *Identity) []byte {
	dst = appendName(dst, `,"profile":`, id.Profile)
	return appendName(dst, `,"profileDigest":`, id.ProfileDigest)
}

func (e *Event) appendRest(dst []byte) []byte {
	dst = appendName(dst, `,"kind":`, string(e.Kind))
	switch {
	case e.Syscall != nil:
		dst = e.Syscall.appendJSON(dst)
	case e.Receipt != nil:
		dst = e.Receipt.appendJSON(dst)
	case e.Timing != nil:
		dst = e.Timing.appendJSON(dst)
	case e.ExecStart != nil:
		dst = e.ExecStart.appendJSON(dst)
	case e.Limit != nil:
		dst = e.Limit.appendJSON(dst)
	case e.OOM != nil:
		dst = e.OOM.appendJSON(dst)
	case e.Loss != nil:
		dst = e.Loss.appendJSON(dst)
	case e.Exit != nil:
		dst = e.Exit.appendJSON(dst)
	case e.End != nil:
		dst = e.End.appendJSON(dst)
	}
	return append(dst, '}')
}

func (s *Syscall) appendJSON(dst []byte) []byte {
	dst = appendUint(dst, `,"pid":`, uint64(s.PID))
	dst = appendUint(dst, `,"tid":`, uint64(s.TID))
	dst = appendUint(dst, `,"ppid":`, uint64(s.PPID))
	dst = appendUint(dst, `,"uid":`, uint64(s.UID))
	dst = appendUint(dst, `,"gid":`, uint64(s.GID))
	dst = appendName(dst, `,"comm":`, s.Comm)
	dst = append(dst, `,"exe":`...)
	dst, _ = appendString(dst, s.Exe, MaxValue)
	dst = appendName(dst, `,"syscall":`, s.Syscall)
	dst = appendInt(dst, `,"nr":`, int64(s.Nr))
	dst = appendName(dst, `,"arch":`, s.Arch)
	dst = append(dst, `,"args":[`...)
	for i := range s.Args[:min(len(s.Args), MaxArgs)] {
		a := &s.Args[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendName(dst, `{"name":`, a.Name)
		dst = append(dst, `,"value":`...)
		var cut bool
		dst, cut = appendString(dst, a.Value, MaxValue)
		dst = appendName(dst, `,"evidence":`, string(a.Evidence))
		dst = appendFlag(dst, `,"truncated":true`, cut || a.Truncated)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	dst = appendOptional(dst, `,"class":`, s.Class)
	dst = appendName(dst, `,"verdict":`, string(s.Verdict))
	dst = appendOptional(dst, `,"errno":`, s.Errno)
	dst = appendOptional(dst, `,"ruleID":`, s.RuleID)
	dst = appendOptional(dst, `,"origin":`, s.Origin)
	if s.Count > 1 {
		dst = appendUint(dst, `,"count":`, s.Count)
		dst = append(dst, `,"until":`...)
		dst = appendTime(dst, s.Until)
	}
	return dst
}

func (r *Receipt) appendJSON(dst []byte) []byte {
	dst = appendName(dst, `,"version":`, r.Version)
	dst = appendName(dst, `,"kernel":`, r.Kernel)
	dst = appendName(dst, `,"placement":`, r.Placement)
	dst = appendName(dst, `,"delegate":`, r.Delegate)
	dst = append(dst, `,"image":`...)
	dst, _ = appendString(dst, r.Image, MaxValue)
	dst = appendUint(dst, `,"pid":`, uint64(r.PID))
	dst = appendInForce(dst, r.SeccompMode, r.Filters)
	dst = appendName(dst, `,"filterDigest":`, r.FilterDigest)
	dst = appendBool(dst, `,"noNewPrivs":`, r.NoNewPrivs)
	dst = appendName(dst, `,"onLoss":`, r.OnLoss)
	dst = appendOptional(dst, `,"durability":`, r.Durability)
	if r.FlushInterval != 0 {
		dst = appendInt(dst, `,"flushInterval":`, int64(r.FlushInterval))
	}
	dst = append(dst, `,"limits":[`...)
	for i := range r.Limits[:min(len(r.Limits), MaxLimits)] {
		l := &r.Limits[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendName(dst, `{"name":`, l.Name)
		dst = appendName(dst, `,"asked":`, l.Asked)
		dst = appendName(dst, `,"found":`, l.Found)
		dst = appendFlag(dst, `,"bestEffort":true`, l.BestEffort)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func (t *Timing) appendJSON(dst []byte) []byte {
	dst = append(dst, `,"began":`...)
	dst = appendTime(dst, t.Began)
	dst = appendName(dst, `,"sandboxID":`, t.SandboxID)
	dst = appendName(dst, `,"delegate":`, t.Delegate)
	dst = appendName(dst, `,"placement":`, t.Placement)
	dst = append(dst, `,"image":`...)
	dst, _ = appendString(dst, t.Image, MaxValue)
	dst = appendOptional(dst, `,"traceparent":`, t.Traceparent)
	dst = append(dst, `,"laps":[`...)
	for i := range t.Laps[:min(len(t.Laps), MaxLaps)] {
		l := &t.Laps[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendName(dst, `{"phase":`, l.Phase)
		dst = appendInt(dst, `,"offset":`, int64(l.Offset))
		dst = appendInt(dst, `,"duration":`, int64(l.Duration))
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func (x *ExecStart) appendJSON(dst []byte) []byte {
	dst = appendUint(dst, `,"pid":`, uint64(x.PID))
	dst = appendUint(dst, `,"uid":`, uint64(x.UID))
	dst = appendUint(dst, `,"gid":`, uint64(x.GID))
	dst = appendBool(dst, `,"terminal":`, x.Terminal)
	dst = appendInForce(dst, x.SeccompMode, x.Filters)
	dst = appendBool(dst, `,"noNewPrivs":`, x.NoNewPrivs)
	dst = append(dst, `,"argv":[`...)
	left, cut := MaxValue, false
	for i, word := range x.Argv {
		if cut = left <= 0; cut {
			break
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, cut = appendString(dst, word, left); cut {
			break
		}
		left -= len(word) + 1
	}
	dst = append(dst, ']')
	return appendFlag(dst, `,"truncated":true`, cut || x.Truncated)
}

func (l *Limit) appendJSON(dst []byte) []byte {
	dst = appendName(dst, `,"operation":`, l.Operation)
	dst = appendName(dst, `,"resource":`, l.Resource)
	dst = appendName(dst, `,"requested":`, l.Requested)
	dst = appendName(dst, `,"ceiling":`, l.Ceiling)
	return appendName(dst, `,"applied":`, l.Applied)
}

func (o *OOM) appendJSON(dst []byte) []byte {
	dst = appendUint(dst, `,"count":`, o.Count)
	return appendUint(dst, `,"memoryLimit":`, o.MemoryLimit)
}

func (l *Loss) appendJSON(dst []byte) []byte {
	dst = appendName(dst, `,"reason":`, l.Reason)
	dst = appendUint(dst, `,"count":`, l.Count)
	dst = appendUint(dst, `,"bytes":`, l.Bytes)
	dst = appendOptional(dst, `,"onLoss":`, l.OnLoss)
	if l.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst, _ = appendString(dst, l.Detail, MaxValue)
	}
	if !l.From.IsZero() {
		dst = appendTime(append(dst, `,"from":`...), l.From)
	}
	if !l.Until.IsZero() {
		dst = appendTime(append(dst, `,"until":`...), l.Until)
	}
	if l.FlushInterval != 0 {
		dst = appendInt(dst, `,"flushInterval":`, int64(l.FlushInterval))
	}
	return dst
}

func (x *Exit) appendJSON(dst []byte) []byte {
	dst = appendUint(dst, `,"status":`, uint64(x.Status))
	dst = appendOptional(dst, `,"signal":`, x.Signal)
	return appendOptional(dst, `,"cause":`, x.Cause)
}

func (x *End) appendJSON(dst []byte) []byte {
	dst = appendUint(dst, `,"records":`, x.Records)
	dst = appendUint(dst, `,"bytes":`, x.Bytes)
	dst = appendUint(dst, `,"calls":`, x.Calls)
	dst = appendUint(dst, `,"denied":`, x.Denied)
	dst = appendUint(dst, `,"losses":`, x.Losses)
	return appendUint(dst, `,"missing":`, x.Missing)
}

func appendInForce(dst []byte, mode, filters int) []byte {
	dst = appendInt(dst, `,"seccompMode":`, int64(mode))
	return appendInt(dst, `,"filters":`, int64(filters))
}

func appendName(dst []byte, key, s string) []byte {
	dst, _ = appendString(append(dst, key...), s, MaxName)
	return dst
}

func appendOptional(dst []byte, key, s string) []byte {
	if s == "" {
		return dst
	}
	return appendName(dst, key, s)
}

func appendInt(dst []byte, key string, n int64) []byte {
	return strconv.AppendInt(append(dst, key...), n, 10)
}

func appendUint(dst []byte, key string, n uint64) []byte {
	return strconv.AppendUint(append(dst, key...), n, 10)
}

func appendBool(dst []byte, key string, b bool) []byte {
	return strconv.AppendBool(append(dst, key...), b)
}

func appendFlag(dst []byte, text string, set bool) []byte {
	if !set {
		return dst
	}
	return append(dst, text...)
}

// appendTime writes RFC 3339 in UTC with all nine digits of the nanoseconds, so that the text has one
// width and sorts as the times do. Times whose year four digits do not hold are clamped.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 {
		return append(dst, `"0000-01-01T00:00:00.000000000Z"`...)
	}
	if year > 9999 {
		return append(dst, `"9999-12-31T23:59:59.999999999Z"`...)
	}
	hour, minute, second := t.Clock()
	dst = append(dst, '"')
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond(), 9)
	return append(dst, 'Z', '"')
}

func appendDigits(dst []byte, n, width int) []byte {
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; width > 0; i, width = i-1, width-1 {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}
