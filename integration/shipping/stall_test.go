// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// fileSide is a file that records are shipped to.
type fileSide string

func (f fileSide) count(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile(string(f))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return int64(bytes.Count(data, []byte("\n")))
}

// A sink that says nothing for as long as it takes delays neither who writes nor another sink, and gets everything when it is back.
func TestStalledSinkDelaysNobody(t *testing.T) {
	t.Parallel()
	server, sink := startMutualNATS(t)
	w := startWriters(t)
	path := fileSide(filepath.Join(t.TempDir(), "records.ndjson"))
	ship(t, w, sink+fill(`
[[sinks]]
name = "file"
type = "file"
file = { path = "{PATH}" }
`, "PATH", string(path)))
	arrived(t, server, between)
	server.proxy.hold(true, true)
	w.more(t, 3*during)
	written := w.written.Load()
	until(t, "the file has all that was written", func() bool { return path.count(t) >= written })
	if n := server.count(t); n >= written {
		t.Fatalf("the stream has %d messages: it was not held up", n)
	}
	server.proxy.hold(false, false)
	everythingArrives(t, w, server)
}
