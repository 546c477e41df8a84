// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify/notifytest"
)

var (
	_ FoldSink = (*stream.Writer)(nil)
	_ Decider  = (*seccomp.Program)(nil)
)

func compile(t testing.TB, classes []string, deny ...string) (*seccomp.Program, []byte) {
	t.Helper()
	policy := seccomp.Policy{Native: seccomp.NativeArch()}
	for _, name := range classes {
		class, ok := seccomp.KnownClass(name)
		if !ok {
			t.Fatalf("no class %s", name)
		}
		policy.Audit = append(policy.Audit, class.Rules...)
	}
	if len(deny) > 0 {
		policy.Layers = []seccomp.Layer{{
			Name: "test", Default: seccomp.ActionAllow, Architectures: []seccomp.Arch{seccomp.Arch386},
			Deny: []seccomp.Rule{{ID: "deny[0]", Syscalls: deny, Errno: uint16(unix.EPERM)}},
		}}
	}
	program, err := seccomp.Compile(policy)
	if err != nil {
		t.Fatal(err)
	}
	var filter []byte
	for _, in := range program.Filter() {
		filter = binary.NativeEndian.AppendUint16(filter, in.Code)
		filter = append(filter, in.JT, in.JF)
		filter = binary.NativeEndian.AppendUint32(filter, in.K)
	}
	return program, filter
}

func openStream(t testing.TB) (*stream.Writer, string) {
	t.Helper()
	id := audit.Identity{
		Node: "node-1", Namespace: "team-a", Pod: "agent-0", PodUID: "5a1c7e0e-0000-4000-8000-000000000001", Container: "agent",
		ContainerID: strings.Repeat("c", 64), Profile: "coder", ProfileDigest: strings.Repeat("d", 64),
	}
	dir := stream.Dir(t.TempDir(), id)
	w, err := stream.OpenWriter(dir, id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, dir
}

// The compiled program, the kernel, this package and the stream together.
func TestWhole(t *testing.T) {
	program, filter := compile(t, []string{"file-read"}, "getppid")
	w, dir := openStream(t)
	s := newStand(t, Options{Program: program, Sink: w})
	began := time.Now()
	for _, args := range [][]string{{"open", "3", "/etc/passwd"}, {"deny", "1000"}, {"forkstorm", "20", "/storm"}} {
		p := notifytest.LaunchFilter(t, filter, nil, append([]string{victim(t)}, args...)...)
		session, err := s.Attach(p.Listener, Leader{PID: p.PID()}, args[0])
		if err != nil {
			t.Fatal(err)
		}
		p.Arm()
		out := finish(t, p, session)
		t.Logf("%v: %s", args, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if w.Folded() != 0 {
		t.Errorf("%d denials are still folded", w.Folded())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "cat "+dir+"/*.*").Output()
	if err != nil {
		entries, _ := os.ReadDir(dir)
		t.Fatalf("%v: %v", err, entries)
	}
	text := string(out)
	for what, want := range map[string]int{
		`"syscall":"execve"`: 3, `"syscall":"openat"`: 23, `"path","value":"/etc/passwd"`: 3, `"comm":"v19"`: 1, `"kind":"loss"`: 0,
	} {
		if got := strings.Count(text, what); got != want {
			t.Errorf("%s is in the stream %d times, want %d", what, got, want)
		}
	}
	// How many records there are depends on the seconds that it took; that they add up does not.
	records, denials := 0, 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, `"verdict":"denied"`) {
			n := 1
			if _, count, ok := strings.Cut(line, `"count":`); ok {
				if _, err := fmt.Sscanf(count, "%d", &n); err != nil {
					t.Fatal(err)
				}
			}
			records, denials = records+1, denials+n
		}
	}
	if seconds := int(took / time.Second); denials != 1000 || records <= foldBurst || records > foldBurst+1+2*seconds {
		t.Errorf("%d denials in %d records after %v, want 1000 in little more than %d", denials, records, took, foldBurst+1)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// latency is what the victim prints of its calls, in microseconds.
type latency struct{ p50, p99, mean float64 }

func parseLatency(t testing.TB, out string) latency {
	t.Helper()
	var a, b, c float64
	if _, err := fmt.Sscanf(out, "p50=%g p99=%g mean=%g", &a, &b, &c); err != nil {
		t.Fatalf("victim: %q", out)
	}
	return latency{a / 1000, b / 1000, c / 1000}
}

// BenchmarkOpenat compares, in turns, what an openat costs its caller: without a filter, served by a bare loop in C
// that reads the path, and served by a supervisor with a stream on disk. ns/op is the supervisor's mean, its close
// included, which nobody notifies.
func BenchmarkOpenat(b *testing.B) {
	program, filter := compile(b, []string{"file-read"})
	w, _ := openStream(b)
	s := newStand(b, Options{Program: program, Sink: w})
	const rounds = 5
	n := fmt.Sprint(max(b.N/rounds, 100))
	var plain, bare, ours []latency
	b.ResetTimer()
	var inOurs time.Duration
	for range rounds {
		out, err := exec.Command(victim(b), "bench", n, "/etc/passwd").Output()
		if err != nil {
			b.Fatal(err)
		}
		plain = append(plain, parseLatency(b, string(out)))

		p := notifytest.LaunchFilter(b, filter, nil, victim(b), "bench", n, "/etc/passwd")
		server := exec.Command(victim(b), "serve", "3")
		listener := os.NewFile(uintptr(p.Listener), "listener")
		server.ExtraFiles = []*os.File{listener}
		if err := server.Start(); err != nil {
			b.Fatal(err)
		}
		listener.Close()
		p.Arm()
		bare = append(bare, parseLatency(b, p.Wait()))
		_ = server.Wait()

		p = notifytest.LaunchFilter(b, filter, nil, victim(b), "bench", n, "/etc/passwd")
		began := time.Now()
		session, err := s.Attach(p.Listener, Leader{PID: p.PID()}, "")
		if err != nil {
			b.Fatal(err)
		}
		p.Arm()
		ours = append(ours, parseLatency(b, finish(b, p, session)))
		inOurs += time.Since(began)
	}
	b.StopTimer()
	best := func(all []latency) latency { // of the medians, and the p99 and mean of the same run
		least := all[0]
		for _, l := range all {
			if l.p50 < least.p50 {
				least = l
			}
		}
		return least
	}
	x, y, z := best(plain), best(bare), best(ours)
	b.ReportMetric(x.p50, "plain-p50-µs")
	b.ReportMetric(y.p50, "c-p50-µs")
	b.ReportMetric(y.p99, "c-p99-µs")
	b.ReportMetric(z.p50, "p50-µs")
	b.ReportMetric(z.p99, "p99-µs")
	b.ReportMetric(z.p50/y.p50, "ratio")
	b.ReportMetric(1e6/z.mean, "calls/s")
	for i := range ours {
		b.Logf("round %d: plain %+v, C %+v, ours %+v", i, plain[i], bare[i], ours[i])
	}
}

// The serving path allocates nothing once a caller is known: audited calls, and denials, single and folded.
func TestServingDoesNotAllocate(t *testing.T) {
	const n = 20000
	r := rules{unix.SYS_OPENAT: audited("file-read"), unix.SYS_GETPPID: denied(unix.EPERM)}
	w, _ := openStream(t)
	for _, args := range [][]string{{"open", fmt.Sprint(n), "/etc/passwd"}, {"deny", fmt.Sprint(n)}} {
		s := newStand(t, Options{Program: r, Sink: w})
		p, session := s.run(t, r, "", args...)
		var before, after runtime.MemStats
		<-session.Started()
		began := time.Now()
		runtime.ReadMemStats(&before)
		finish(t, p, session)
		runtime.ReadMemStats(&after)
		// What time brings, such as an identity that has grown old, is no cost of the calls.
		aging := uint64(10 * time.Since(began).Seconds())
		if got := after.Mallocs - before.Mallocs; got > n/50+aging {
			t.Errorf("%s: %d allocations for %d calls", args[0], got, n)
		}
	}
}
