// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"metsuke.dev/metsuke/audit"
)

// The chain: a record's last field is
//
//	"chain":"<hex SHA-256 of: chain of the record before it, as 64 hex digits | the record up to the field's comma>"
//
// The first record of a stream follows 64 zeros. It goes on across segments and writers.
const (
	chainLen = 2 * sha256.Size
	chainKey = `,"chain":"`
	chainEnd = `"}` + "\n"
	seqKey   = `","seq":`
	lineHead = `{"v":1,"time":"`
	timeLen  = len("2006-01-02T15:04:05.000000000Z")
	maxSkips = 1000 // damaged lines that recovery passes over before it gives up
)

var chainZero = string(bytes.Repeat([]byte{'0'}, chainLen))

// seal completes a record. line is the chain of the record before it, then the record as the encoder
// wrote it; the result has the chain field and a newline as well.
func seal(line []byte) []byte {
	line = line[:len(line)-1] // the closing brace
	sum := sha256.Sum256(line)
	line = append(line, chainKey...)
	line = hex.AppendEncode(line, sum[:])
	return append(line, chainEnd...)
}

// splitChain splits a whole line into what the chain covers and the chain.
func splitChain(line []byte) (body, chain []byte, ok bool) {
	n := len(line) - len(chainKey) - chainLen - len(chainEnd)
	if n < 0 || !bytes.HasPrefix(line[n:], []byte(chainKey)) || !bytes.HasSuffix(line, []byte(chainEnd)) {
		return nil, nil, false
	}
	chain = line[n+len(chainKey):][:chainLen]
	for _, b := range chain {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return nil, nil, false
		}
	}
	return line[:n], chain, true
}

// whole tells whether a line has the frame of a complete record, and its number and chain. It looks at
// the frame only: a record may be of a newer kind, but a torn one, or one with blocks that a power
// failure lost, must not pass.
func whole(line []byte) (seq uint64, chain []byte, ok bool) {
	body, chain, ok := splitChain(line)
	if !ok || len(body) < len(lineHead)+timeLen+len(seqKey) || !bytes.HasPrefix(body, []byte(lineHead)) {
		return 0, nil, false
	}
	for _, b := range body {
		if b < ' ' {
			return 0, nil, false
		}
	}
	rest, ok := bytes.CutPrefix(body[len(lineHead)+timeLen:], []byte(seqKey))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 1 {
		return 0, nil, false
	}
	seq, err := strconv.ParseUint(string(rest[:end]), 10, 64)
	return seq, chain, err == nil && seq > 0 && seq < 1<<63 // so that there is always a next one
}

// endKey is what only a record of kind end has: inside a string the quotes would be escaped.
var endKey = []byte(`,"kind":"` + audit.KindEnd + `"`)

func isEnd(line []byte) bool { return bytes.Contains(line, endKey) }

// stamp returns number and time of a record, from its beginning alone.
func stamp(line []byte) (seq uint64, at time.Time, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(lineHead))
	if !ok || len(rest) < timeLen {
		return 0, time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(rest[:timeLen]))
	if err != nil {
		return 0, time.Time{}, false
	}
	rest, ok = bytes.CutPrefix(rest[timeLen:], []byte(seqKey))
	digits, _, found := bytes.Cut(rest, []byte(","))
	if !ok || !found {
		return 0, time.Time{}, false
	}
	seq, err = strconv.ParseUint(string(digits), 10, 64)
	return seq, at, err == nil
}

// Link is what a record is in the chain; the zero value is what the first record follows.
type Link struct {
	Seq   uint64
	Chain string // 64 hex digits
}

// What Follow finds wrong with a line.
var (
	ErrNoRecord = errors.New("not a whole record")
	ErrNumber   = errors.New("out of number")
	ErrChain    = errors.New("the chain is broken: the record, or one before it, was changed")
)

// Follow returns the link of a line with its newline, which should follow the given one. The error is one of ErrNoRecord, ErrNumber and
// ErrChain; with the last two the link is what the line claims.
func (l Link) Follow(line []byte) (Link, error) {
	seq, chain, ok := whole(line)
	if !ok {
		return Link{}, ErrNoRecord
	}
	next := Link{seq, string(chain)}
	body, _, _ := splitChain(line)
	if l == (Link{}) {
		l.Chain = chainZero
	}
	hash := sha256.New()
	hash.Write([]byte(l.Chain))
	hash.Write(body)
	switch {
	case seq != l.Seq+1:
		return next, ErrNumber
	case hex.EncodeToString(hash.Sum(nil)) != next.Chain:
		return next, ErrChain
	}
	return next, nil
}
