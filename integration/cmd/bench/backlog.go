// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// backlog is streams of usual records that nobody has read yet.
type backlog struct {
	root    string
	records map[string]uint64 // by the stream's directory below root
	bytes   int64
	denied  int // records of denied calls: one in deniedEvery
}

const deniedEvery = 10_000

// Paths of a backlog's records: so many of a build, again and again, and one that one record has.
const (
	paths = 2000
	rare  = "/etc/shadow"
)

// sum is how many records there are.
func (l *backlog) sum() (n uint64) {
	for _, records := range l.records {
		n += records
	}
	return n
}

// newBacklog writes so many streams on the disk, each of at least so many bytes, as a shim does: in segments of the usual size, signed.
func (b *bench) newBacklog(streams int, bytes uint64) (*backlog, error) {
	root, err := onDisk("backlog")
	if err != nil {
		return nil, err
	}
	l := &backlog{root: root, records: map[string]uint64{}}
	for n := range streams {
		w, name, err := b.openBacklog(l, n)
		if err != nil {
			return nil, err
		}
		err = l.fill(w, bytes)
		l.records[name] = w.Seq()
		l.bytes += int64(w.Bytes())
		if err := errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// openBacklog opens one of the streams, which has the name below root.
func (b *bench) openBacklog(l *backlog, n int) (w *stream.Writer, name string, err error) {
	key, err := signature.LoadOrMake(b.KeyPath())
	if err != nil {
		return nil, "", err
	}
	id := audit.Identity{
		Node: "worker-1", Namespace: "team-a", Pod: fmt.Sprintf("coder-7d4b9c6f5-%d", n), PodUID: fmt.Sprintf("00000000-0000-4000-9000-%012d", n),
		Container: "agent", ContainerID: fmt.Sprintf("%064x", n+1), Profile: "coder", ProfileDigest: strings.Repeat("77aa", 16),
	}
	dir := stream.Dir(l.root, id)
	w, err = stream.OpenWriter(dir, id, stream.Options{SegmentBytes: 64 << 20, Key: key})
	return w, strings.TrimPrefix(dir, l.root+"/"), err
}

// fill writes one stream. The rare record is in the middle of the first.
func (l *backlog) fill(w *stream.Writer, bytes uint64) error {
	seen := len(l.records) > 0
	for i := uint64(1); w.Bytes() < bytes; i++ {
		e := usual(fmt.Sprintf("/work/repository/build/objects/%d.o", i%paths))
		if !seen && w.Bytes() > bytes/2 {
			seen, e = true, usual(rare)
		}
		if i%deniedEvery == 0 {
			e.Syscall.Verdict, e.Syscall.Errno, e.Syscall.RuleID = audit.VerdictDenied, "EPERM", "coder/no-writes"
			l.denied++
		}
		if err := w.Append(e); err != nil {
			return err
		}
	}
	return nil
}

// usual is an event that happens now.
func usual(path string) *audit.Event {
	return &audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, TID: 41, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13",
		Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Class: "file-write", Verdict: audit.VerdictAllowed,
		Args: []audit.Arg{
			{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
			{Name: "path", Value: path, Evidence: audit.EvidencePeeked},
			{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister},
			{Name: "mode", Value: "0666", Evidence: audit.EvidenceRegister},
		},
	}}
}

// pace adds records to all streams in turns, so many a second, for a while.
func (b *bench) pace(l *backlog, rate int, duration time.Duration) (err error) {
	writers := make([]*stream.Writer, len(l.records))
	names := make([]string, len(l.records))
	defer func() {
		for _, w := range writers {
			if w != nil {
				err = errors.Join(err, w.Close())
			}
		}
	}()
	for n := range writers {
		if writers[n], names[n], err = b.openBacklog(l, n); err != nil {
			return err
		}
	}
	begin := time.Now()
	for i := range rate * int(duration.Seconds()) {
		n := i % len(writers)
		if err := writers[n].Append(usual(rare)); err != nil {
			return err
		}
		l.records[names[n]] = writers[n].Seq()
		if ahead := time.Duration(i)*time.Second/time.Duration(rate) - time.Since(begin); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	return nil
}
