// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// watchMachine puts a sensor on the pod's virtual machine.
func watchMachine(pod *stand.Pod) (*stand.Sensor, error) {
	machines := pod.Machines()
	if len(machines) != 1 {
		return nil, fmt.Errorf("machines of the pod: %v, want one", machines)
	}
	return stand.Watch(machines[0])
}

// showBlind prints what the stream has beside what the sensor saw at the host, and fails where that is the same.
func showBlind(events []stand.Event, sensor *stand.Sensor) error {
	seen, err := sensor.Counts()
	if err != nil {
		return err
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return err
	}
	node, guest := unix.ByteSliceToString(host.Release[:]), fmt.Sprint(events[0].Fields["kernel"])
	fmt.Printf("the agent ran on Linux %s, the node runs Linux %s\n\n", guest, node)
	var problems []error
	if guest == node {
		problems = append(problems, errors.New("the agent ran on the node's kernel"))
	}
	recorded := map[string]int{}
	for _, e := range events {
		if e.Kind == "syscall" {
			recorded[e.Syscall] += times(e)
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CALL\tIN THE STREAM\tBY STRACE OF THE MACHINE'S PROCESS")
	for _, call := range slices.Sorted(maps.Keys(recorded)) {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%d\n", call, recorded[call], seen[call])
		if seen[call] > 0 {
			problems = append(problems, fmt.Errorf("the host saw %d calls of %s", seen[call], call))
		}
	}
	_ = table.Flush()
	total := 0
	for _, n := range seen {
		total += n
	}
	fmt.Printf("(strace saw %d calls: %s)\n", total, strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
	return errors.Join(problems...)
}
