// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"path/filepath"
	"testing"
)

const shipperConfig = `
version = 1
[directories]
audit = "{AUDIT}"
checkpoints = "{CHECKPOINTS}"
`

// shipper is `metsuke ship`.
type shipper struct {
	dir, program, config string
	process              *process
}

// ship ships what writers write to sinks, which are tables of the configuration.
func ship(t *testing.T, w *writers, sinks string) *shipper {
	t.Helper()
	s := &shipper{dir: t.TempDir(), program: metsuke(t)}
	s.config = write(t, s.dir, "ship.toml", fill(shipperConfig, "AUDIT", w.root, "CHECKPOINTS", filepath.Join(s.dir, "checkpoints"))+sinks)
	s.start(t)
	return s
}

func (s *shipper) start(t *testing.T) {
	t.Helper()
	s.process = start(t, s.dir, s.program, "ship", "--config", s.config)
}

// killed is a fault of the shipper itself.
func (s *shipper) killed(t *testing.T) fault {
	return fault{"the shipper is killed", func() { s.process.kill() }, func() { s.start(t) }}
}
