// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// copyTree copies all files below root, as a crash at this moment would leave them.
func copyTree(t testing.TB, root string) string {
	t.Helper()
	to, err := os.MkdirTemp("", "crash")
	if err == nil {
		err = os.CopyFS(to, os.DirFS(root))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(stream.Dir(to, signedID)), stream.Dir(to, signedID)} {
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.RemoveAll(to) })
	return to
}

// TestKilledAtEachStep: wherever a writer is killed, nothing seems wrong, the next one goes on, and nothing seems wrong then.
func TestKilledAtEachStep(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	type crash struct{ what, root string }
	var crashes []crash
	var mu sync.Mutex
	steps := map[string]int{}
	o := stream.AtEachStep(stream.Options{Key: key, SegmentBytes: 800}, func(step string) {
		mu.Lock()
		defer mu.Unlock()
		steps[step]++
		crashes = append(crashes, crash{fmt.Sprint(step, " ", steps[step]), copyTree(t, root)})
	})
	for range 2 {
		w := openSigned(t, root, o)
		for n := range 7 {
			add(t, w, oom(n))
			if n%3 == 0 {
				w.Tick()
			}
		}
		add(t, w, end())
		closeSigned(t, w)
	}
	for _, step := range []string{"rotate", "manifest", "head", "ledger"} {
		if steps[step] == 0 {
			t.Errorf("no step %q in %v", step, steps)
		}
	}
	for _, c := range crashes {
		before := proven(t, c.what, c.root, keys)
		w := openSigned(t, c.root, stream.Options{Key: key, SegmentBytes: 800})
		if w.Recovered().Missing != 0 || w.Seq() != before.Records {
			t.Errorf("%s: recovered %+v, record %d", c.what, w.Recovered(), w.Seq())
		}
		add(t, w, oom(100), oom(101), oom(102))
		closeSigned(t, w)
		if s := proven(t, c.what+", and went on", c.root, keys); s.Signed != s.Records || s.Records != before.Records+3 {
			t.Errorf("%s: %+v", c.what, s)
		}
	}
}

// TestSignedWriterKilled: the same with real processes, killed at any moment.
func TestSignedWriterKilled(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(t.TempDir(), "key.pem")
	key, err := signature.LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	keys := signature.Ring{key.Public}
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], root, path)
		cmd.Env = append(os.Environ(), "METSUKE_STREAM_TEST_CHILD=signed")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var acknowledged uint64
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if seq, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				acknowledged = seq
			}
			if n == 1+13*round%40 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		if s := proven(t, fmt.Sprint("round ", round), root, keys); s.Records < acknowledged {
			t.Errorf("round %d: %d records, %d acknowledged", round, s.Records, acknowledged)
		}
	}
	closeSigned(t, openSigned(t, root, stream.Options{Key: key}))
	if s := proven(t, "at the end", root, keys); s.Openings != rounds+1 || s.Signed != s.Records {
		t.Errorf("at the end: %+v", s)
	}
}

// TestVerifiedWhileWritten: who verifies a stream that goes on never finds a fault.
func TestVerifiedWhileWritten(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	const looks, openings = 60, 2 // openings for each look, so that the stream stays short however slow a look is
	instances := make(chan int, looks*openings+1)
	var wg sync.WaitGroup
	wg.Go(func() {
		n := 0
		for range instances {
			w := openSigned(t, root, stream.Options{Key: key, SegmentBytes: 4000})
			for range 30 {
				add(t, w, oom(n))
				if n++; n%7 == 0 {
					w.Tick()
				}
				time.Sleep(100 * time.Microsecond)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	instances <- 0
	for last := []byte(nil); last == nil; time.Sleep(time.Millisecond) {
		last, _ = segment.Last(stream.Dir(root, signedID))
	}
	for n := range looks {
		for range openings {
			instances <- n
		}
		proven(t, fmt.Sprint("look ", n), root, keys)
	}
	close(instances)
	wg.Wait()
}

// TestMissingRecords: records that were signed for and are gone are told to the next writer, and found for ever after.
func TestMissingRecords(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	w := openSigned(t, root, stream.Options{Key: key})
	add(t, w, oom(1), oom(2), oom(3), oom(4))
	w.Tick()
	crashed := copyTree(t, root)
	closeSigned(t, w)
	dir := stream.Dir(crashed, signedID)
	path := filepath.Join(dir, "00000001.ndjson")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	if err := os.WriteFile(path, []byte(lines[0]+lines[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := verify.Dir(dir, keys); err != nil || s.Verdict() != verify.Fault || s.Findings[0].Code != verify.Truncated || s.Findings[0].Seq != 3 {
		t.Errorf("truncated: %+v, %v", s, err)
	}
	w = openSigned(t, crashed, stream.Options{Key: key})
	if got := w.Recovered().Missing; got != 2 {
		t.Errorf("%d records are missing, want 2", got)
	}
	for range 3 {
		add(t, w, oom(5))
	}
	closeSigned(t, w)
	closeSigned(t, openSigned(t, crashed, stream.Options{Key: key}))
	s, err := verify.Dir(dir, keys)
	if err != nil || len(s.Findings) != 1 || s.Findings[0].Code != verify.SignedMissing || s.Findings[0].Seq != 3 || s.Signed != 5 {
		t.Errorf("gone on: %+v, %v", s, err)
	}
}
