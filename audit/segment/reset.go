// SPDX-License-Identifier: Apache-2.0

package segment

import "metsuke.dev/metsuke/audit/stream"

// Reset makes the Reader one for the stream in dir, at a position as for OpenReaderAt. It keeps its buffer, so that one Reader can go through
// many streams in turns. The zero value can be Reset too. A stream that is not there ends with io.EOF.
func (r *Reader) Reset(dir string, at stream.Position) {
	_ = r.Close() // it was only read
	if cap(r.buf) == 0 {
		r.buf = make([]byte, 0, 64<<10)
	}
	*r = Reader{dir: dir, from: at, segment: stream.Segment{Number: max(at.Segment, 1) - 1}, buf: r.buf[:0]}
}
