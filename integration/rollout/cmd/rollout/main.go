// SPDX-License-Identifier: Apache-2.0

// Command rollout measures how a change of a profile reaches all nodes of a large cluster, and what that costs the API server: with real
// agents, the real controller, a real API server and etcd. It prints tables, or with -o json what they are made from.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"metsuke.dev/metsuke/integration/rollout"
)

func main() {
	sizes := flag.String("nodes", "250,500,1000,2000,4000", "comma-separated `numbers` of nodes, one run each")
	target := flag.Int("target", 15000, "the `number` of nodes to extrapolate to")
	output := flag.String("o", "text", "output `format`: text or json")
	root := flag.String("root", "../..", "`directory` of the checkout")
	o := rollout.Options{Progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, "rollout: "+format+"\n", args...) }}
	flag.IntVar(&o.Documents, "documents", 4, "how many profiles and bindings there are")
	flag.IntVar(&o.Changes, "changes", 3, "how often a profile is changed in each run")
	flag.DurationVar(&o.Settle, "settle", time.Second, "the agents' --settle")
	flag.DurationVar(&o.Spread, "acknowledge-within", 20*time.Second, "the agents' --acknowledge-within")
	flag.BoolVar(&o.Restarts, "restarts", true, "measure restarts of all agents and of the API server, and heartbeats, too")
	flag.Parse()
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what thousands of agents would log
	_ = log.SetLevel("error")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, *root, *sizes, *target, *output, o); err != nil {
		fmt.Fprintln(os.Stderr, "rollout:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, sizes string, target int, output string, o rollout.Options) error {
	write, err := writer(output)
	if err != nil {
		return err
	}
	nodes, err := numbers(sizes)
	if err != nil {
		return err
	}
	if o.Programs, err = rollout.Find(root, true); err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, filepath.Join(o.Kubernetes, "kube-apiserver"), "--version").Output()
	if err != nil {
		return err
	}
	r := &rollout.Report{
		Kubernetes: strings.TrimPrefix(strings.TrimSpace(string(version)), "Kubernetes "), CPUs: runtime.NumCPU(), Target: target,
		Settle: o.Settle.Seconds(), Spread: o.Spread.Seconds(),
	}
	for _, o.Nodes = range nodes {
		result, err := rollout.Run(ctx, o)
		if err != nil {
			return err
		}
		r.Results = append(r.Results, result)
	}
	r.Fit()
	return write(r)
}

func writer(output string) (func(*rollout.Report) error, error) {
	switch output {
	case "text":
		return func(r *rollout.Report) error { return r.Write(os.Stdout) }, nil
	case "json":
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return func(r *rollout.Report) error { return encoder.Encode(r) }, nil
	}
	return nil, fmt.Errorf("-o %s: want text or json", output)
}

// numbers are sorted: the largest run is the last.
func numbers(list string) ([]int, error) {
	var out []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-nodes: %q is no number of nodes", word)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, cmp.Compare[int])
	return out, nil
}
