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

// newBacklog writes so many streams on the disk, each of at least so many bytes, as a shim does: in segments of the usual size, signed.
func (b *bench) newBacklog(streams int, bytes uint64) (*backlog, error) {
	root, err := onDisk("backlog")
	if err != nil {
		return nil, err
	}
	key, err := signature.LoadOrMake(b.KeyPath())
	if err != nil {
		return nil, err
	}
	l := &backlog{root: root, records: map[string]uint64{}}
	for n := range streams {
		id := audit.Identity{
			Node: "worker-1", Namespace: "team-a", Pod: fmt.Sprintf("coder-7d4b9c6f5-%d", n), PodUID: fmt.Sprintf("00000000-0000-4000-9000-%012d", n),
			Container: "agent", ContainerID: fmt.Sprintf("%064x", n+1), Profile: "coder", ProfileDigest: strings.Repeat("77aa", 16),
		}
		w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{SegmentBytes: 64 << 20, Key: key})
		if err != nil {
			return nil, err
		}
		err = l.fill(w, bytes)
		l.records[strings.TrimPrefix(stream.Dir(root, id), root+"/")] = w.Seq()
		if err := errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// fill writes one stream. The rare record is in the middle of the first.
func (l *backlog) fill(w *stream.Writer, bytes uint64) error {
	seen := len(l.records) > 0
	for i := uint64(1); w.Bytes() < bytes; i++ {
		path := fmt.Sprintf("/work/repository/build/objects/%d.o", i%paths)
		if !seen && w.Bytes() > bytes/2 {
			seen, path = true, rare
		}
		call := audit.Syscall{
			PID: 41, TID: 41, PPID: 1, UID: 1000, GID: 1000, Comm: "python3", Exe: "/usr/bin/python3.13",
			Syscall: "openat", Nr: 257, Arch: "SCMP_ARCH_X86_64", Class: "file-write", Verdict: audit.VerdictAllowed,
			Args: []audit.Arg{
				{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
				{Name: "path", Value: path, Evidence: audit.EvidencePeeked},
				{Name: "flags", Value: "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", Evidence: audit.EvidenceRegister},
				{Name: "mode", Value: "0666", Evidence: audit.EvidenceRegister},
			},
		}
		if i%deniedEvery == 0 {
			call.Verdict, call.Errno, call.RuleID = audit.VerdictDenied, "EPERM", "coder/no-writes"
			l.denied++
		}
		if err := w.Append(&audit.Event{Time: time.Now(), Kind: audit.KindSyscall, Syscall: &call}); err != nil {
			return err
		}
	}
	l.bytes += int64(w.Bytes())
	return nil
}
