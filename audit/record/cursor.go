// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
)

// cursor reads a line from left to right. What it cannot read as the encoder writes it sets failed, which stays; what it returns then
// means nothing.
type cursor struct {
	line   []byte
	at     int
	failed bool
	arena  []byte // strings that had escapes

	minute string    // of the last time, as it stood in its record up to the seconds
	base   time.Time // its beginning
}

func (c *cursor) begin(line []byte) {
	c.line, c.at, c.failed, c.arena = line, 0, false, c.arena[:0]
}

// optional reads text if it is what follows.
func (c *cursor) optional(text string) bool {
	if c.failed || len(c.line)-c.at < len(text) || string(c.line[c.at:c.at+len(text)]) != text {
		return false
	}
	c.at += len(text)
	return true
}

func (c *cursor) literal(text string) {
	if !c.optional(text) {
		c.failed = true
	}
}

// field reads a key and the string behind it.
func (c *cursor) field(key string) string {
	c.literal(key)
	return c.name()
}

func (c *cursor) optionalField(key string) string {
	if !c.optional(key) {
		return ""
	}
	return c.name()
}

func (c *cursor) uint32(key string) uint32 {
	c.literal(key)
	return uint32(c.uint(math.MaxUint32))
}

// uint reads a number of at most max, which is above 9.
func (c *cursor) uint(max uint64) (n uint64) {
	start := c.at
	for ; c.at < len(c.line); c.at++ {
		digit := uint64(c.line[c.at] - '0')
		if digit > 9 {
			break
		}
		if n > (max-digit)/10 {
			c.failed = true
			return 0
		}
		n = 10*n + digit
	}
	if c.at == start || c.at-start > 1 && c.line[start] == '0' {
		c.failed = true
	}
	return n
}

func (c *cursor) int32() int32 {
	if c.optional(`-`) {
		return int32(-int64(c.uint(-math.MinInt32)))
	}
	return int32(c.uint(math.MaxInt32))
}

// time reads a time of the encoder's one width, quotes included.
func (c *cursor) time() time.Time {
	const upToSeconds, width = len("2006-01-02T15:04:"), len("2006-01-02T15:04:05.000000000Z")
	c.literal(`"`)
	if c.failed || len(c.line)-c.at < width {
		c.failed = true
		return time.Time{}
	}
	text := c.line[c.at : c.at+width]
	c.at += width
	if minute := text[:upToSeconds]; string(minute) != c.minute {
		base, err := time.Parse(time.RFC3339, string(minute)+"00Z")
		if err != nil {
			c.failed = true
			return time.Time{}
		}
		c.minute, c.base = string(minute), base
	}
	seconds, ok := digits(text[upToSeconds : upToSeconds+2])
	nanos, ok2 := digits(text[upToSeconds+3 : width-1])
	if !ok || !ok2 || seconds > 59 || text[upToSeconds+2] != '.' || text[width-1] != 'Z' {
		c.failed = true
	}
	c.literal(`"`)
	return c.base.Add(time.Duration(seconds)*time.Second + time.Duration(nanos))
}

func digits(text []byte) (n int, ok bool) {
	for _, b := range text {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = 10*n + int(b-'0')
	}
	return n, true
}

// name reads a string, and returns the bytes that it stands for.
func (c *cursor) name() string {
	s := c.text()
	if !strings.HasPrefix(s, "$'") { // nearly all; Unquote would return it as it is
		return s
	}
	raw, ok := audit.Unquote(s)
	if !ok {
		c.failed = true
	}
	return raw
}

// text reads a JSON string.
func (c *cursor) text() string {
	c.literal(`"`)
	if c.failed {
		return ""
	}
	start := c.at
	c.at = plainEnd(c.line, start)
	if c.at < len(c.line) && c.line[c.at] == '"' {
		c.at++
		return view(c.line[start : c.at-1])
	}
	return c.textFrom(start)
}

// textFrom reads on in a string that began at start and has something in it that does not stand for itself, or is not ASCII.
func (c *cursor) textFrom(start int) string {
	begin := len(c.arena)
	c.arena = append(c.arena, c.line[start:c.at]...)
	for c.at < len(c.line) {
		switch b := c.line[c.at]; {
		case b == '"':
			c.at++
			return view(c.arena[begin:])
		case b == '\\':
			c.escape()
		case b >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(c.line[c.at:])
			c.failed = c.failed || r == utf8.RuneError && n == 1
			c.arena = append(c.arena, c.line[c.at:c.at+n]...)
			c.at += n
		default:
			end := plainEnd(c.line, c.at)
			c.failed = c.failed || end == c.at
			c.arena = append(c.arena, c.line[c.at:end]...)
			c.at = end
		}
		if c.failed {
			return ""
		}
	}
	c.failed = true
	return ""
}

// escape reads one escape of those that the encoder writes for characters that need no second one.
func (c *cursor) escape() {
	rest := c.line[c.at:]
	if len(rest) < 2 {
		c.failed = true
		return
	}
	c.at += 2
	switch rest[1] {
	case '"', '\\':
		c.arena = append(c.arena, rest[1])
	case 'n':
		c.arena = append(c.arena, '\n')
	case 't':
		c.arena = append(c.arena, '\t')
	case 'r':
		c.arena = append(c.arena, '\r')
	case 'u':
		var r rune
		for _, b := range rest[2:min(6, len(rest))] {
			digit := strings.IndexByte("0123456789abcdef", b)
			if digit < 0 {
				c.failed = true
				return
			}
			r = r<<4 | rune(digit)
		}
		if len(rest) < 6 || !utf8.ValidRune(r) {
			c.failed = true
			return
		}
		c.arena = utf8.AppendRune(c.arena, r)
		c.at += 4
	default:
		c.failed = true
	}
}

// plainEnd returns the index of the first byte from i on that ends a JSON string, is an escape, may not be in one, or is not ASCII.
// It looks at eight bytes at a time: the lowest one that is found is exact, whatever is above it.
func plainEnd(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^('"'*ones), w^('\\'*ones)
		found := (w | (w-' '*ones)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}
