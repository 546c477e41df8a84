// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/integration/stand"
)

// queryBytes is how much a query looks for its records in.
const queryBytes = 1 << 30

// query measures metsuke audit query with filters that choose little of a large stream, in megabytes of records a second.
func (b *bench) query() (err error) {
	log, err := b.newBacklog(1, queryBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(log.root)) }()
	index := filepath.Join(log.root, "..", "index")
	defer func() { err = errors.Join(err, os.RemoveAll(index)) }()
	if err := b.queries(log, index, "", 500); err != nil {
		return err
	}
	if err := b.compress(log); err != nil {
		return err
	}
	return b.queries(log, index, ", compressed", 0)
}

// queries measures all queries; aim is for those without an index, 0 is none.
func (b *bench) queries(log *backlog, index, form string, aim float64) error {
	denied, once := []string{"--verdict", "denied"}, []string{"--path", rare}
	for _, q := range []struct {
		what, index string
		filter      []string
		records     int // that are found
		aim         float64
	}{
		{fmt.Sprintf("one record in %d is found", deniedEvery), "", denied, log.denied, aim},
		{"one record is found", "", once, 1, aim},
		{"one record is found, with an index", index, once, 1, 0},
	} {
		var speeds samples // MB/s
		for round := range max(3, b.rounds/6) + 1 {
			begin := time.Now()
			found, err := b.found(append([]string{"--dir", log.root, "--index", q.index}, q.filter...))
			if err != nil {
				return err
			}
			if found != q.records {
				return fmt.Errorf("%q finds %d records, there are %d", q.filter, found, q.records)
			}
			if round > 0 { // the first one makes the index, and has the files read
				speeds = append(speeds, float64(log.bytes)/1e6/time.Since(begin).Seconds())
			}
		}
		r := row{
			what: "query: " + q.what + form, n: fmt.Sprint(len(speeds)), with50: number(speeds.p50(), "MB/s"),
		}
		if q.aim > 0 {
			r.aim, r.result = fmt.Sprintf("≥ %.0f MB/s", q.aim), verdict(speeds.p50() >= q.aim)
		}
		b.table.add(r)
		tick()
	}
	return nil
}

// found is how many records a query prints.
func (b *bench) found(args []string) (int, error) {
	var problems bytes.Buffer
	cmd := exec.CommandContext(b.ctx, stand.Metsuke("metsuke"), append([]string{"audit", "query", "-o", "json"}, args...)...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil || problems.Len() > 0 {
		return 0, fmt.Errorf("metsuke audit query %q: %w: %s", args, err, problems.String())
	}
	return bytes.Count(out, []byte("\n")), nil
}
