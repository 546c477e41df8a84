// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// printDenials counts what was denied, by rule.
func printDenials(events []stand.Event) {
	type denial struct{ syscall, errno, rule, origin string }
	counts := map[denial]int{}
	for _, e := range events {
		if e.Kind != "syscall" || e.Verdict == "allowed" {
			continue
		}
		counts[denial{e.Syscall, fmt.Sprint(e.Fields["errno"]), e.RuleID, e.Origin}] += times(e)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "TIMES\tCALL\tANSWER\tRULE\tOF")
	order := slices.SortedFunc(maps.Keys(counts), func(a, b denial) int {
		return cmp.Or(cmp.Compare(a.syscall, b.syscall), cmp.Compare(a.rule, b.rule))
	})
	for _, d := range order {
		_, _ = fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", counts[d], d.syscall, d.errno, d.rule, d.origin)
	}
	_ = table.Flush()
}

// times is how many calls a record stands for: several equal denials have one.
func times(e stand.Event) int {
	if count, ok := e.Fields["count"].(float64); ok {
		return int(count)
	}
	return 1
}

// check fails the demo where Metsuke did not do what the demo is there to show.
func check(events []stand.Event, status *runtimeapi.ContainerStatus) error {
	var problems []error
	missing := func(what string, fits func(stand.Event) bool) {
		if !slices.ContainsFunc(events, fits) {
			problems = append(problems, fmt.Errorf("the stream has no %s", what))
		}
	}
	for _, call := range []string{"ptrace", "mount", "unshare", "io_uring_setup", "bpf", "socket"} {
		missing("denial of "+call, func(e stand.Event) bool { return e.Syscall == call && e.Verdict == "denied" })
	}
	for _, kind := range []string{"start", "limit", "oom", "exit"} {
		missing("record of kind "+kind, func(e stand.Event) bool { return e.Kind == kind })
	}
	missing("connection", func(e stand.Event) bool { return e.Syscall == "connect" && e.Verdict == "allowed" })
	if status.GetExitCode() != 0 {
		problems = append(problems, fmt.Errorf("the agent itself ended with status %d", status.GetExitCode()))
	}
	return errors.Join(problems...)
}
