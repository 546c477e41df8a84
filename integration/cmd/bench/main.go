// SPDX-License-Identifier: Apache-2.0

// Command bench measures, in one run, what Metsuke costs against the delegate alone, on a real containerd through CRI:
// starts of pods, execs, system calls, a build, memory, and many pods at once. It prints one table, with each aim and
// whether it was met; a missed aim is no failure of the command.
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
	"strings"
	"time"

	"metsuke.dev/metsuke/integration/stand"
)

// The handlers that are measured.
const (
	delegate = "runc"
	baseline = stand.HandlerBaseline
	opens    = "metsuke-opens" // audits every openat
)

const imageBench = "stand.test/bench:1"

//go:embed probe/probe.c
var probeSource []byte

// opensProfile is baseline, and audits what baseline leaves in the kernel.
const opensProfile = `apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: opens}
spec:
  extends: [baseline]
  audit: {syscalls: [openat]}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: everywhere}
spec: {namespaces: ["*"], default: opens, allowed: [opens]}
`

// bench is one run.
type bench struct {
	*stand.Stand
	ctx    context.Context
	rounds int
	other  string // the handler that is compared with the delegate alone
	table  table
	only   string
}

func main() {
	version := flag.String("containerd", string(stand.V2), "containerd `version`, 2.4 or 1.7")
	rounds := flag.Int("rounds", 30, "`number` of rounds; each part takes what it needs of them")
	other := flag.String("handler", baseline, "the `handler` to compare with the delegate alone; runc: how much two equals differ here")
	only := flag.String("only", "", "comma-separated `parts`: start,exec,calls,open,build,memory,many")
	write := flag.String("write", "", "write the table into this Markdown `file` too, between <!-- bench:begin --> and <!-- bench:end -->")
	flag.Parse()
	stand.Enter(stand.Version(*version).Set(), "runc", "cni")
	if err := run(stand.Version(*version), *rounds, *other, *only, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(version stand.Version, rounds int, other, only, write string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	probe, err := compileProbe()
	if err != nil {
		return err
	}
	s, err := stand.Start(ctx, stand.Options{Version: version, Handlers: append(stand.StandardHandlers(),
		stand.Handler{Name: opens, Profiles: map[string]string{"opens.yaml": opensProfile}})})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	files := stand.NewFiles().Busybox().Host("/bin/probe", probe).HostProgram("strace").File("/etc/probed", 0o644, []byte("probed\n"))
	if err := s.AddImage(imageBench, stand.Image{Files: files, Entrypoint: []string{"/bin/workload", "pause"}}); err != nil {
		return err
	}
	b := &bench{Stand: s, ctx: ctx, rounds: rounds, other: other, only: only}
	parts := []struct {
		name, doc string
		measure   func() error
	}{
		{"start", "starting pods", b.starts},
		{"exec", "exec in a running container", b.execs},
		{"calls", "a system call that is allowed", b.calls},
		{"open", "an openat that is audited", b.audited},
		{"build", "a workload like a build", b.build},
		{"memory", "memory of the shims", b.memory},
		{"many", "many pods at once", b.many},
	}
	for _, part := range parts {
		if only != "" && !strings.Contains(","+only+",", ","+part.name+",") {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "bench: %s ", part.doc)
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w\n%s", part.doc, err, s.LogTail(10))
		}
		fmt.Fprintf(os.Stderr, "(%.0f s)\n", time.Since(begin).Seconds())
		if err := s.RemoveAllPods(ctx); err != nil {
			return err
		}
	}
	text := b.table.markdown(fmt.Sprintf("containerd %s, %s", version, machine()))
	fmt.Print("\n", text)
	if write != "" {
		return writeBetween(write, text)
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

// idle runs a pod with one container that waits, and returns the container.
func (b *bench) idle(handler string) (*stand.Container, error) {
	pod, err := b.RunPod(b.ctx, stand.PodConfig{Handler: handler})
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
	var numbers []float64
	for _, text := range strings.Fields(result.Stdout) {
		var number float64
		if _, err := fmt.Sscan(text, &number); err != nil {
			return nil, fmt.Errorf("%q printed %q", command, text)
		}
		numbers = append(numbers, number)
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%q printed nothing", command)
	}
	return numbers, nil
}

// tick shows that a round is done.
func tick() { fmt.Fprint(os.Stderr, ".") }
