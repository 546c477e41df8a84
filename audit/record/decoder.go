// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"math"
	"slices"
	"strings"

	"metsuke.dev/metsuke/audit"
)

// Decoder reads records as Parse does, but takes a fraction of the time for calls in the form in which the encoder writes them,
// and does not allocate for them. Anything else it leaves to Parse. Its zero value is ready. Not safe for concurrent use.
type Decoder struct {
	rec     Record
	call    audit.Syscall
	args    [audit.MaxArgs]audit.Arg
	cursor  cursor
	who     block // node to containerID
	profile block // profile to profileDigest
}

// block is a run of fields that is the same in most records of a stream: as it stood in the last one, and what it says.
type block struct {
	text  []byte
	words [6]string // own copies
}

var (
	whoKeys     = []string{`,"node":`, `,"namespace":`, `,"pod":`, `,"podUID":`, `,"container":`, `,"containerID":`}
	profileKeys = []string{`,"profile":`, `,"profileDigest":`}
)

// Decode decodes one line, with or without its newline. What it returns is what Parse returns, errors too, but the record and
// all that it refers to are valid only until the next call, and while line is not changed.
func (d *Decoder) Decode(line []byte) (*Record, error) {
	if len(line) <= audit.MaxRecord && d.decode(bytes.TrimSuffix(line, []byte("\n"))) {
		return &d.rec, nil
	}
	return Parse(line)
}

// decode reads a call in the encoder's own form; false if that is not what it is. Each field that it takes is one that Parse takes
// for the same: FuzzDecoder holds the two to each other.
func (d *Decoder) decode(line []byte) bool {
	c := &d.cursor
	c.begin(line)
	c.literal(`{"v":1,"time":`)
	at := c.time()
	c.literal(`,"seq":`)
	seq := c.uint(math.MaxUint64)
	d.who.read(c, whoKeys)
	c.literal(`,"exec":`)
	exec := c.name()
	d.profile.read(c, profileKeys)
	c.literal(`,"kind":"syscall"`)
	if c.failed || seq == 0 {
		return false
	}
	d.readCall(c)
	chain := ""
	if c.optional(`,"chain":`) {
		chain = c.text()
	}
	c.literal(`}`)
	if c.failed || c.at != len(line) {
		return false
	}
	w, p := &d.who.words, &d.profile.words
	d.rec = Record{
		Seq: seq, Chain: chain,
		Identity: audit.Identity{
			Node: w[0], Namespace: w[1], Pod: w[2], PodUID: w[3], Container: w[4], ContainerID: w[5],
			Profile: p[0], ProfileDigest: p[1],
		},
		Event: audit.Event{Time: at, Exec: exec, Kind: audit.KindSyscall, Syscall: &d.call},
	}
	return true
}

func (d *Decoder) readCall(c *cursor) {
	s := &d.call
	*s = audit.Syscall{}
	s.PID = c.uint32(`,"pid":`)
	s.TID = c.uint32(`,"tid":`)
	s.PPID = c.uint32(`,"ppid":`)
	s.UID = c.uint32(`,"uid":`)
	s.GID = c.uint32(`,"gid":`)
	s.Comm = c.field(`,"comm":`)
	s.Exe = c.field(`,"exe":`)
	s.Syscall = c.field(`,"syscall":`)
	c.literal(`,"nr":`)
	s.Nr = c.int32()
	s.Arch = c.field(`,"arch":`)
	s.Args = d.readArgs(c)
	s.Class = c.optionalField(`,"class":`)
	s.Verdict = audit.Verdict(c.field(`,"verdict":`))
	s.Errno = c.optionalField(`,"errno":`)
	s.RuleID = c.optionalField(`,"ruleID":`)
	s.Origin = c.optionalField(`,"origin":`)
	if c.optional(`,"count":`) {
		s.Count = c.uint(math.MaxUint64)
	}
	if c.optional(`,"until":`) {
		s.Until = c.time()
	}
}

// readArgs returns nil if there are none, as Parse does.
func (d *Decoder) readArgs(c *cursor) []audit.Arg {
	c.literal(`,"args":[`)
	n := 0
	for !c.failed && !c.optional(`]`) {
		if n == len(d.args) {
			c.failed = true
			return nil
		}
		if n > 0 {
			c.literal(`,`)
		}
		a := &d.args[n]
		a.Name = c.field(`{"name":`)
		a.Value = c.field(`,"value":`)
		a.Evidence = audit.Evidence(c.field(`,"evidence":`))
		a.Truncated = c.optional(`,"truncated":true`)
		c.literal(`}`)
		n++
	}
	if n == 0 {
		return nil
	}
	return d.args[:n]
}

// read reads the fields, or finds that they are those of the record before.
func (b *block) read(c *cursor, keys []string) {
	if len(b.text) > 0 && bytes.HasPrefix(c.line[c.at:], b.text) {
		c.at += len(b.text)
		return
	}
	start := c.at
	var words [len(b.words)]string
	for i, key := range keys {
		words[i] = c.field(key)
	}
	if c.failed {
		return
	}
	for i := range keys {
		b.words[i] = strings.Clone(words[i])
	}
	b.text = append(slices.Grow(b.text[:0], c.at-start), c.line[start:c.at]...)
}
