// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/integration/stand"
)

// sinkName is what the shipper's one sink is called.
const sinkName = "bench"

// shipper is a metsuke ship that runs.
type shipper struct {
	cmd *exec.Cmd
	dir string // its files, on the disk
}

// startShipper ships the streams under root to a sink, whose table in ship.toml, but for its name, is what sink makes of the shipper's
// directory.
func startShipper(root string, sink func(dir string) string, flags ...string) (_ *shipper, err error) {
	s := &shipper{}
	if s.dir, err = onDisk("ship"); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version = 1\n[directories]\naudit = %q\ncheckpoints = %q\n[[sinks]]\nname = %q\n%s", root, s.checkpoints(), sinkName, sink(s.dir))
	file := filepath.Join(s.dir, "ship.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	s.cmd = exec.Command(stand.Metsuke("metsuke"), append([]string{"ship", "--config", file}, flags...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the shipper: %w", err)
	}
	return s, nil
}

func (s *shipper) log() string         { return filepath.Join(s.dir, "log") }
func (s *shipper) checkpoints() string { return filepath.Join(s.dir, "checkpoints") }

// confirmed is how many records of each stream the sink has confirmed, by the stream's directory below the root.
func (s *shipper) confirmed() (map[string]uint64, error) {
	c, err := checkpoint.Load(s.checkpoints(), sinkName)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	records := map[string]uint64{}
	for name, mark := range c.Marks {
		records[name] = mark.Seq
	}
	return records, nil
}

// shipPatience is how long a shipper may take for what is left when all is written.
const shipPatience = 5 * time.Minute

// wait waits until the sink has confirmed all records of the streams, whose numbers of records it is given.
func (s *shipper) wait(records map[string]uint64) error {
	for end := time.Now().Add(shipPatience); ; time.Sleep(20 * time.Millisecond) {
		confirmed, err := s.confirmed()
		if err != nil {
			return err
		}
		missing := uint64(0)
		for name, n := range records {
			missing += n - min(n, confirmed[name])
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d records are not shipped after %s: %s", missing, shipPatience, s.messages())
		}
	}
}

// memory is the most that was resident of it, in megabytes: VmHWM of proc_pid_status(5).
func (s *shipper) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6, nil
		}
	}
	return 0, errors.New("the shipper has ended: " + s.messages())
}

// finish waits for a shipper that ends by itself, and returns the most that was resident of it.
func (s *shipper) finish() (memory float64, err error) {
	for err == nil {
		var now float64
		now, err = s.memory()
		memory = max(memory, now)
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("metsuke ship: %w: %s", err, s.messages())
	}
	return memory, nil
}

// stop ends it in order, and returns how much time of processors it took.
func (s *shipper) stop() (time.Duration, error) {
	if s.cmd.ProcessState == nil {
		if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 0, err
		}
		if err := s.cmd.Wait(); err != nil {
			return 0, fmt.Errorf("metsuke ship: %w: %s", err, s.messages())
		}
	}
	return s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime(), nil
}

// remove kills it, if it has not ended, and removes what it has written. One that has ended by itself, and was not to, is an error.
func (s *shipper) remove() (err error) {
	if s.cmd.ProcessState == nil {
		_, err = s.memory()
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // says that it was killed
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// messages are the last lines that it has printed.
func (s *shipper) messages() string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// fileSink is a sink that is a file.
func fileSink(dir string) string {
	return fmt.Sprintf("type = \"file\"\n[sinks.file]\npath = %q\n", shippedTo(dir))
}

// shippedTo is that file.
func shippedTo(dir string) string { return filepath.Join(dir, "shipped.ndjson") }
