// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/integration/stand"
)

const (
	shipStreams = 15
	shipRecords = 300_000 // that are there before the shipper is
	shipRate    = 20_000  // a second, that come while it runs
	shipFor     = 20 * time.Second
	shipMemory  = 60 // MB
)

// ship measures the shipper: how fast it ships what is there, and what it takes at the rate that is promised.
func (b *bench) ship() error {
	dir, err := os.MkdirTemp("", "ship")
	if err != nil {
		return err
	}
	fast, rate, err := shipping(stand.Metsuke("metsuke"), dir)
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	perSecond := shipRecords / fast.wall.Seconds()
	b.table.add(row{
		what: fmt.Sprintf("metsuke ship: %d records of %d streams, to a file", shipRecords, shipStreams), n: "1",
		with50: number(perSecond, "a second"), ratio: number(fast.cpu.Seconds()*1e6/shipRecords, "µs CPU each"), aim: "≥ 20000 a second", result: verdict(perSecond >= 20_000),
	})
	b.table.add(row{
		what: fmt.Sprintf("metsuke ship: largest resident memory at %d records a second", shipRate), n: "1",
		with50: number(rate.resident, "MB"), ratio: number(100*rate.cpu.Seconds()/rate.wall.Seconds(), "% of a CPU"), aim: fmt.Sprintf("≤ %d MB", shipMemory),
		result: verdict(rate.resident <= shipMemory),
	})
	return nil
}

// used is what a process took.
type used struct {
	wall, cpu time.Duration
	resident  float64 // at most, in megabytes
}

// shipping ships what is there, and then what comes at the rate.
func shipping(binary, dir string) (fast, rate used, err error) {
	root, config := filepath.Join(dir, "audit"), filepath.Join(dir, "ship.toml")
	text := fmt.Sprintf("version = 1\ndirectories = { audit = %q, checkpoints = %q }\n[[sinks]]\nname = \"file\"\ntype = \"file\"\nfile = { path = %q, max_size = \"256Mi\", keep = 0 }\n",
		root, filepath.Join(dir, "ship"), filepath.Join(dir, "out.ndjson"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fast, rate, err
	}
	key, err := signature.New()
	if err != nil {
		return fast, rate, err
	}
	if err := fill(root, key, shipRecords/shipStreams, 0); err != nil {
		return fast, rate, err
	}
	once := exec.Command(binary, "ship", "--once", "--config", config)
	if fast, err = measured(once, func() error { return nil }); err != nil {
		return fast, rate, err
	}
	rate, err = measured(exec.Command(binary, "ship", "--config", config), func() error {
		pause := time.Second * shipStreams / shipRate
		if err := fill(root, key, int(shipFor/pause), pause); err != nil {
			return err
		}
		time.Sleep(time.Second) // for what it still has to ship
		return nil
	})
	return fast, rate, err
}

// measured runs a shipper while meanwhile runs, ends it if it has not ended, and says what it took.
func measured(cmd *exec.Cmd, meanwhile func() error) (used, error) {
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return used{}, err
	}
	err := meanwhile()
	if cmd.Args[2] != "--once" {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return used{}, err
	}
	u := used{wall: time.Since(begin), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.resident = float64(usage.Maxrss) * 1024 / 1e6
	}
	return u, nil
}

// fill writes records to all streams, with a pause between two of a stream.
func fill(root string, key *signature.Key, records int, pause time.Duration) error {
	problems := make([]error, shipStreams)
	var all sync.WaitGroup
	for i := range shipStreams {
		all.Go(func() { problems[i] = fillOne(root, key, i, records, pause) })
	}
	all.Wait()
	return errors.Join(problems...)
}

func fillOne(root string, key *signature.Key, n, records int, pause time.Duration) (err error) {
	id := audit.Identity{
		Node: "bench", Namespace: "bench", Pod: fmt.Sprint("pod-", n), PodUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Container: "agent",
		ContainerID: fmt.Sprintf("%064d", n), Profile: "baseline", ProfileDigest: fmt.Sprintf("%064d", 1),
	}
	w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{Key: key, SegmentBytes: 64 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	begin := time.Now()
	for i := range records {
		e := audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			PID: 4711, TID: 4711, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13", Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64",
			Class: "file-write", Verdict: audit.VerdictAllowed, Origin: "baseline",
			Args: []audit.Arg{
				{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister}, {Name: "path", Value: fmt.Sprintf("/workspace/build/object-%d.o", i), Evidence: audit.EvidencePeeked},
				{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister}, {Name: "mode", Value: "0644", Evidence: audit.EvidenceRegister},
			},
		}}
		if err := w.Append(&e); err != nil {
			return err
		}
		if ahead := time.Duration(i)*pause - time.Since(begin); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	return nil
}
