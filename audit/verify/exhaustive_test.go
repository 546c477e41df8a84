// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// samples are a stream as its writer leaves it, and as retention does.
var samples = map[string]func(testing.TB, string, *signature.Key){
	"written":  func(t testing.TB, root string, key *signature.Key) { sample(t, root, sampleID, key) },
	"retained": retained,
}

// TestEveryBit flips each bit of each byte of each file of a stream and of the ledger.
func TestEveryBit(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) { everyBit(t, name, sample) })
	}
}

func everyBit(t *testing.T, name string, sample func(testing.TB, string, *signature.Key)) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, key)
	clean(t, root, keys)
	type flip struct {
		file     string
		at, step int
	}
	flips := make(chan flip)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			own := clone(t, root)
			for f := range flips {
				path := filepath.Join(own, f.file)
				data := load(t, path)
				for bit := f.at % f.step; bit < 8; bit += f.step {
					data[f.at] ^= 1 << bit
					store(t, path, data)
					if faults, _ := judge(t, own, keys); faults == nil {
						t.Errorf("%s: byte %d, bit %d: it is not found", f.file, f.at, bit)
					}
					data[f.at] ^= 1 << bit
				}
				store(t, path, data)
			}
			clean(t, own, keys)
		})
	}
	for _, file := range files(t, root) {
		step := stride(name, file)
		for at := range load(t, filepath.Join(root, file)) {
			flips <- flip{file, at, step}
		}
	}
	close(flips)
	workers.Wait()
}

// stride is the step of tests that take all there are of a file, unless that would take minutes. What retention leaves as it was, all is taken of
// in the sample that it has not seen.
func stride(sample, file string) int {
	own := strings.HasSuffix(file, stream.CompressedSuffix) || filepath.Base(file) == manifest.RemovalsName
	if raceDetector || testing.Short() || sample == "retained" && !own {
		return 31
	}
	return 1
}

// TestEveryLength cuts each file at each length, and lets each grow by a byte.
func TestEveryLength(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) { everyLength(t, name, sample) })
	}
}

func everyLength(t *testing.T, name string, sample func(testing.TB, string, *signature.Key)) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, key)
	for _, file := range files(t, root) {
		path := filepath.Join(root, file)
		data := load(t, path)
		for n := 0; n < len(data); n += stride(name, file) {
			store(t, path, data[:n])
			if faults, _ := judge(t, root, keys); faults == nil {
				t.Errorf("%s: cut to %d of %d bytes: it is not found", file, n, len(data))
			}
		}
		store(t, path, data[:len(data)-1])
		if faults, _ := judge(t, root, keys); faults == nil {
			t.Errorf("%s: without its last byte: it is not found", file)
		}
		for _, more := range []string{"x", "\n", "{}\n", "\x00"} {
			store(t, path, append(bytes.Clone(data), more...))
			if faults, _ := judge(t, root, keys); faults == nil && !slices.Contains([]string{"ledger", "removals"}, filepath.Base(file)) { // in which half a line is no fault
				t.Errorf("%s: with %q behind it: it is not found", file, more)
			}
		}
		store(t, path, data)
	}
	clean(t, root, keys)
}

// lines are the lines of all segments of the sample, and how many each segment has.
func lines(t *testing.T, dir string) (all [][]byte, sizes []int) {
	t.Helper()
	segments, err := stream.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		own := bytes.SplitAfter(load(t, s.Path), []byte("\n"))
		own = own[:len(own)-1]
		all, sizes = append(all, own...), append(sizes, len(own))
	}
	return all, sizes
}

// put writes lines into segments: as many into each as it had, and what is too many into the last one.
func put(t *testing.T, dir string, all [][]byte, sizes []int) {
	t.Helper()
	for i, n := range sizes {
		if i == len(sizes)-1 {
			n = len(all)
		}
		n = min(n, len(all))
		store(t, filepath.Join(dir, fmt.Sprintf("%08d.ndjson", i+1)), bytes.Join(all[:n], nil))
		all = all[n:]
	}
}

// TestEveryRecord deletes and repeats each record, and swaps each pair, in segments as they were and as they would be.
func TestEveryRecord(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	dir := stream.Dir(root, sampleID)
	all, sizes := lines(t, dir)
	if len(all) != 6 || len(sizes) < 3 {
		t.Fatalf("%d records, segments of %v", len(all), sizes)
	}
	for name, same := range map[string]bool{"in their segments": true, "in one segment": false} {
		try := func(what string, want verify.Code, changed [][]byte) {
			t.Helper()
			if same {
				put(t, dir, changed, sizes)
			} else {
				put(t, dir, changed, append([]int{len(changed)}, make([]int, len(sizes)-1)...))
			}
			faults, _ := judge(t, root, keys)
			if !has(faults, want) {
				t.Errorf("%s %s: %v, want %s", what, name, faults, want)
			}
		}
		for i := range all {
			want := verify.RecordMissing
			if i == len(all)-1 {
				want = verify.Truncated
			}
			try(fmt.Sprint("deleted ", i+1), want, slices.Delete(slices.Clone(all), i, i+1))
			try(fmt.Sprint("repeated ", i+1), verify.RecordOrder, slices.Insert(slices.Clone(all), i, all[i]))
			for j := range i {
				swapped := slices.Clone(all)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				try(fmt.Sprint("swapped ", j+1, " and ", i+1), verify.RecordOrder, swapped)
			}
		}
		if !same {
			try("nothing changed", verify.Rewritten, all)
		}
	}
	put(t, dir, all, sizes)
	clean(t, root, keys)
}

// TestEveryLine does the same to the lines of the manifest and of the ledger.
func TestEveryLine(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	for _, file := range []string{"manifest", "ledger"} {
		path := filepath.Join(stream.Dir(root, sampleID), file)
		if file == "ledger" {
			path = filepath.Join(root, file)
		}
		data := load(t, path)
		all := bytes.SplitAfter(data, []byte("\n"))
		all = all[:len(all)-1]
		try := func(what string, changed [][]byte) {
			t.Helper()
			store(t, path, bytes.Join(changed, nil))
			if faults, _ := judge(t, root, keys); faults == nil {
				t.Errorf("%s: %s: it is not found", file, what)
			}
		}
		for i := range all {
			try(fmt.Sprint("deleted ", i+1), slices.Delete(slices.Clone(all), i, i+1))
			try(fmt.Sprint("repeated ", i+1), slices.Insert(slices.Clone(all), i, all[i]))
			for j := range i {
				swapped := slices.Clone(all)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				try(fmt.Sprint("swapped ", j+1, " and ", i+1), swapped)
			}
		}
		store(t, path, data)
	}
	clean(t, root, keys)
}

// TestEveryFile removes each file, swaps each pair, and puts in the place of each one that of another stream, and each earlier one.
func TestEveryFile(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	var earlier []string // copies of the node
	w := begin(t, root, sampleID, key, 2)
	earlier = append(earlier, clone(t, root))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	earlier = append(earlier, clone(t, root))
	sample(t, root, sampleID, key)
	sample(t, root, otherID, key)
	w = begin(t, root, sampleID, key, 1)
	earlier = append(earlier, clone(t, root))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	clean(t, root, keys)
	own, other := stream.Dir(root, sampleID), stream.Dir(root, otherID)
	entries, err := os.ReadDir(own)
	if err != nil {
		t.Fatal(err)
	}
	found := func(what string) {
		t.Helper()
		if faults, _ := judge(t, root, keys); faults == nil {
			t.Errorf("%s: it is not found", what)
		}
	}
	for i, e := range entries {
		path := filepath.Join(own, e.Name())
		data := load(t, path)
		for _, place := range append([]string{other}, dirs(earlier)...) {
			replacement, err := os.ReadFile(filepath.Join(place, e.Name()))
			if err != nil || bytes.Equal(replacement, data) {
				continue
			}
			store(t, path, replacement)
			found(fmt.Sprintf("%s of %s", e.Name(), place))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		found("without " + e.Name())
		store(t, path, data)
		for _, f := range entries[:i] {
			second := filepath.Join(own, f.Name())
			was := load(t, second)
			store(t, path, was)
			store(t, second, data)
			found("swapped " + f.Name() + " and " + e.Name())
			store(t, path, data)
			store(t, second, was)
		}
	}
	clean(t, root, keys)
	ledger := filepath.Join(root, "ledger")
	data := load(t, ledger)
	for _, place := range earlier {
		store(t, ledger, load(t, filepath.Join(place, "ledger")))
		found("the ledger of " + place)
	}
	if err := os.Remove(ledger); err != nil {
		t.Fatal(err)
	}
	found("without the ledger")
	store(t, ledger, data)
	clean(t, root, keys)
}

func dirs(roots []string) (list []string) {
	for _, root := range roots {
		list = append(list, stream.Dir(root, sampleID))
	}
	return list
}

// TestWholeStreams: a stream that is taken away, put in another's place, or brought back to what it was.
func TestWholeStreams(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	write(t, root, sampleID, key, 3)
	earlier := clone(t, root)
	write(t, root, sampleID, key, 3)
	sample(t, root, otherID, key)
	own, other := stream.Dir(root, sampleID), stream.Dir(root, otherID)
	for _, tt := range []struct {
		what string
		do   func() error
		want verify.Code
	}{
		{"taken away", func() error { return os.RemoveAll(own) }, verify.StreamGone},
		{"put in another's place", func() error {
			return errors.Join(os.RemoveAll(own), os.Rename(other, own))
		}, verify.StreamMoved},
		{"brought back", func() error {
			return errors.Join(os.RemoveAll(own), os.CopyFS(own, os.DirFS(stream.Dir(earlier, sampleID))))
		}, verify.StreamRolledBack},
		{"stripped of what is signed", func() error {
			return errors.Join(os.Remove(filepath.Join(own, "manifest")), os.Remove(filepath.Join(own, "head")))
		}, verify.StreamGone},
		{"begun anew without a key", func() error {
			err := os.RemoveAll(own)
			write(t, root, sampleID, nil, 3)
			return err
		}, verify.StreamGone},
	} {
		saved := clone(t, root)
		if err := tt.do(); err != nil {
			t.Fatal(err)
		}
		if faults, _ := judge(t, root, keys); !has(faults, tt.want) {
			t.Errorf("%s: %v, want %s", tt.what, faults, tt.want)
		}
		if err := errors.Join(os.RemoveAll(filepath.Dir(own)), os.CopyFS(filepath.Dir(own), os.DirFS(filepath.Join(saved, strings.TrimPrefix(filepath.Dir(own), root))))); err != nil {
			t.Fatal(err)
		}
		clean(t, root, keys)
	}
}
