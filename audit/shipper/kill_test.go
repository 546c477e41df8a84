// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink/file"
	"metsuke.dev/metsuke/audit/stream"
)

// The process that is killed has these: the streams, the checkpoints and the file that it ships to.
const envKilled = "METSUKE_TEST_SHIPPER"

func TestMain(m *testing.M) {
	if places := os.Getenv(envKilled); places != "" {
		part := strings.Split(places, ":")
		fmt.Fprintln(os.Stderr, Run(context.Background(), Options{
			Root: part[0], Checkpoints: part[1], Node: "n", Metrics: NewMetrics("test"), Sinks: []Destination{toFile(part[2])},
		}))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func toFile(path string) Destination {
	d := to("file", file.New(&config.File{Path: path}))
	d.Config.Batch.Records = 20
	return d
}

// TestKilled: wherever the shipper is killed, nothing is missing in the end, and what came twice has the same id.
func TestKilled(t *testing.T) {
	n := newNode(t)
	a, b := n.open("a", stream.Options{SegmentBytes: 16 << 10}), n.open("b", stream.Options{})
	out := filepath.Join(t.TempDir(), "out")
	size := func() int64 {
		info, err := os.Stat(out)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for range 10 {
		write(t, a, 300)
		write(t, b, 100)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%s:%s", envKilled, n.root, n.marks, out))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := size()
		eventually(t, "something is shipped", func() bool { return size() > before })
		time.Sleep(rand.N(30 * time.Millisecond)) // somewhere: the test passes wherever it is
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	n.once(toFile(out))
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	seen := map[string]bool{}
	twice := 0
	for line := range bytes.Lines(data) {
		line := strings.TrimSuffix(string(line), "\n")
		_, chain, record := strings.Cut(line, `,"chain":"`)
		switch {
		case !record || strings.Contains(line, `,"signed":`):
		case seen[chain]:
			twice++
		default:
			seen[chain] = true
			for _, pod := range []string{"a", "b"} {
				if strings.Contains(line, `"pod":"`+pod+`"`) {
					got[pod] = append(got[pod], line)
				}
			}
		}
	}
	for _, pod := range []string{"a", "b"} {
		if want := n.lines(pod); !slices.Equal(got[pod], want) {
			t.Errorf("%s: %d of %d records, or another order", pod, len(got[pod]), len(want))
		}
	}
	t.Logf("%d came twice", twice)
}
