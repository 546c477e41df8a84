// SPDX-License-Identifier: Apache-2.0

// Command bench measures, in one run, what Metsuke costs against the delegate alone, on a real containerd through CRI:
// starts of pods, execs, system calls, a build, memory, many pods at once; and what the audit stream bears: calls for a minute,
// queries, shipping. It prints one table, with each aim and whether it was met; a missed aim is no failure of the command.
//
// What is compared is measured in turns, round by round, so that what else the machine does meets both alike.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

const imageBench = "stand.test/bench:1"

//go:embed probe/probe.c
var probeSource []byte

// opensProfiles are baseline, and audit what baseline leaves in the kernel.
const opensProfiles = `apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: opens-ordered}
spec:
  extends: [baseline]
  audit: {syscalls: [openat]}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: opens-buffered}
spec:
  extends: [opens-ordered]
  replace: true
  audit: {syscalls: [openat], delivery: buffered}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: opens-synced}
spec:
  extends: [opens-ordered]
  audit: {durability: synced}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: everywhere}
spec: {namespaces: ["*"], default: opens-ordered, allowed: [opens-ordered, opens-buffered, opens-synced]}
`

// handlers of a placement: Metsuke with baseline, and with the profiles above.
func handlers(placement stand.Placement) (baseline, opens stand.Handler) {
	baseline = stand.Handler{Name: "metsuke-" + string(placement), Placement: placement}
	opens = baseline
	opens.Name, opens.Profiles = "metsuke-opens-"+string(placement), map[string]string{"opens.yaml": opensProfiles}
	return baseline, opens
}

// bench is one run.
type bench struct {
	*stand.Stand
	ctx       context.Context
	rounds    int
	duration  time.Duration   // of what is measured for a time
	placement stand.Placement // that is measured now
	other     string          // the handler that is compared with the delegate alone
	opens     string          // the one that audits every openat
	table     table
}

// aims are the ratios that are not to be exceeded; 0 is none.
func (b *bench) aims() (start, exec float64) {
	switch {
	case b.Delegate == stand.Kata:
		return 1.05, 1.3
	case b.placement == stand.Host:
		return 1.25, 1.25
	}
	return 0, 0
}

// choice is what the flags say.
type choice struct {
	rounds   int
	duration time.Duration
	other    string // handler
	only     string
	write    string
}

func main() {
	setup, c := stand.SetupFlags(), choice{}
	flag.IntVar(&c.rounds, "rounds", 0, "`number` of rounds (default 30, on Kata 8); each part takes what it needs of them")
	flag.DurationVar(&c.duration, "duration", time.Minute, "how long audited calls are made for in part sustained, in windows of 10s; in part stalled a twentieth of it, in turns")
	flag.StringVar(&c.other, "handler", "", "the `handler` to compare with the delegate alone, instead of baseline; the delegate's: how much two equals differ here")
	flag.StringVar(&c.only, "only", "", "comma-separated `parts`: start,exec,calls,open,durability,build,delivery,rate,memory,resident,many,sustained,stalled,query,ship")
	flag.StringVar(&c.write, "write", "", "write the table into this Markdown `file` too, between <!-- bench:begin --> and <!-- bench:end -->, on Kata bench-kata")
	flag.Parse()
	if c.rounds == 0 {
		c.rounds = 30
		if setup.Delegate == stand.Kata {
			c.rounds = 8
		}
	}
	if c.duration < time.Second {
		fmt.Fprintln(os.Stderr, "bench: -duration must be a second at least")
		os.Exit(2)
	}
	stand.EnterPrepared(prepare(setup))
	if err := run(setup, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(setup *stand.Setup, c choice) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	probe, err := compileProbe()
	if err != nil {
		return err
	}
	placements := setup.Delegate.Placements
	if setup.Placement != "" {
		placements = []stand.Placement{setup.Placement}
	}
	options := stand.Options{Version: setup.Version, Delegate: setup.Delegate}
	for _, placement := range placements {
		baseline, opens := handlers(placement)
		options.Handlers = append(options.Handlers, baseline, opens)
	}
	s, err := stand.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	files := stand.NewFiles().Busybox().Host("/bin/probe", probe).HostProgram("strace").File("/etc/probed", 0o644, []byte("probed\n"))
	if err := s.AddImage(imageBench, stand.Image{Files: files, Entrypoint: []string{"/bin/workload", "pause"}}); err != nil {
		return err
	}
	b := &bench{Stand: s, ctx: ctx, rounds: c.rounds, duration: c.duration}
	for _, placement := range placements {
		if err := b.measure(placement, c.other, c.only); err != nil {
			return err
		}
	}
	text := b.table.markdown(fmt.Sprintf("containerd %s with %s, %s", setup.Version, setup.Delegate.About(), machine()))
	fmt.Print("\n", text)
	if c.write != "" {
		mark := "bench"
		if setup.Delegate != stand.Runc {
			mark += "-" + setup.Delegate.Name
		}
		return writeBetween(c.write, mark, text)
	}
	return nil
}

// measure makes the measurements that tell something of a placement.
func (b *bench) measure(placement stand.Placement, other, only string) error {
	baseline, opens := handlers(placement)
	b.placement, b.other, b.opens = placement, baseline.Name, opens.Name
	if other != "" {
		b.other = other
	}
	b.table.prefix = ""
	if b.Delegate == stand.Runc && placement == stand.Guest {
		b.table.prefix = "guest placement: "
	}
	for _, part := range []struct {
		name, doc string
		in        stand.Placement // "" is both
		measure   func() error
	}{
		{"start", "starting pods", "", b.starts},
		{"exec", "exec in a running container", "", b.execs},
		{"calls", "a system call that is allowed", stand.Host, b.calls},
		{"open", "an openat that is audited", stand.Host, b.audited},
		{"durability", "an openat that is audited, and when its record is safe", "", b.durabilities},
		{"build", "a workload like a build", stand.Host, b.build},
		{"delivery", "an openat that is audited, and when it goes on", stand.Guest, b.deliveries},
		{"rate", "many audited calls", stand.Guest, b.rates},
		{"memory", "memory of the shims", "", b.memory},
		{"resident", "memory of the resident", stand.Guest, b.resident},
		{"many", "many pods at once", stand.Host, b.many},
		{"sustained", "audited calls and their shipping, for a while", stand.Host, b.sustained},
		{"stalled", "audited calls beside a shipper", stand.Host, b.stalled},
		{"query", "queries of a large stream", stand.Host, b.query},
		{"ship", "shipping records", stand.Host, b.ship},
	} {
		if (part.in != "" && part.in != placement) || (only != "" && !strings.Contains(","+only+",", ","+part.name+",")) {
			continue
		}
		begin, known := time.Now(), len(b.table.rows)
		fmt.Fprintf(os.Stderr, "bench: %s%s ", b.table.prefix, part.doc)
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w\n%s", part.doc, err, b.LogTail(10))
		}
		fmt.Fprintf(os.Stderr, "(%.0f s)\n", time.Since(begin).Seconds())
		for _, r := range b.table.rows[known:] {
			fmt.Fprintf(os.Stderr, "  %s: %s\n", r.what, strings.Join(strings.Fields(r.without50+" "+r.with50+" "+r.ratio), " "))
		}
		if err := b.RemoveAllPods(b.ctx); err != nil {
			return err
		}
	}
	return nil
}

// compileProbe builds the static C program of the measurements, inside the stand.
func compileProbe() (string, error) {
	source, binary := filepath.Join(stand.Dir, "probe.c"), filepath.Join(stand.Dir, "probe")
	if err := os.WriteFile(source, probeSource, 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", binary, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the probe: %w\n%s", err, out)
	}
	return binary, nil
}

// pod runs a pod. On Kata it says how large it is, so that all virtual machines are.
func (b *bench) pod(ctx context.Context, config stand.PodConfig) (*stand.Pod, error) {
	if modify := config.Modify; b.Delegate == stand.Kata {
		config.Modify = func(c *runtimeapi.PodSandboxConfig) {
			if modify != nil {
				modify(c)
			}
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 512 << 20, CpuPeriod: 100_000, CpuQuota: 100_000}
		}
	}
	return b.RunPod(ctx, config)
}

// idle runs a pod with one container that waits, and returns the container. A profile is one that the handler's binding allows;
// "" is its default.
func (b *bench) idle(handler, profile string) (*stand.Container, error) {
	config := stand.PodConfig{Handler: handler}
	if profile != "" {
		config.Annotations = map[string]string{"metsuke.dev/profile": profile}
	}
	pod, err := b.pod(b.ctx, config)
	if err != nil {
		return nil, err
	}
	return pod.Run(b.ctx, stand.ContainerConfig{Image: imageBench})
}

// probe executes the probe in a container and returns the numbers that it prints.
func (b *bench) probe(c *stand.Container, command ...string) ([]float64, error) {
	result, err := c.Exec(b.ctx, command...)
	if err != nil {
		return nil, err
	}
	if result.Status != 0 {
		return nil, fmt.Errorf("%q: status %d: %s", command, result.Status, result.Stderr)
	}
	numbers, err := parseNumbers(result.Stdout)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", command, err)
	}
	return numbers, nil
}

// parseNumbers reads what the probe prints.
func parseNumbers(printed string) (numbers []float64, err error) {
	for _, text := range strings.Fields(printed) {
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("printed %q", text)
		}
		numbers = append(numbers, number)
	}
	if len(numbers) == 0 {
		return nil, errors.New("printed nothing")
	}
	return numbers, nil
}

// tick shows that a round is done.
func tick() { fmt.Fprint(os.Stderr, ".") }
