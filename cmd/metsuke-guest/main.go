// SPDX-License-Identifier: Apache-2.0

// The Go runtime need not find out how many CPUs the container may use, which it reads from files
// under /proc and /sys: it would cost start-up time, and the launcher sets its own number.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command metsuke-guest is Metsuke's helper in the container. It is not for people to call.
//
//	metsuke-guest run TOKEN -- ARGUMENTS    become the workload, under the supervisor's filter
package main

import (
	"syscall"

	"metsuke.dev/metsuke/guest/launcher"
)

// The launcher runs from init, as [launcher.Main] asks.
func init() {
	if args := launcher.Args(); len(args) > 1 && args[1] == "run" {
		launcher.Main(args[2:])
	}
}

func main() {
	verb := ""
	if args := launcher.Args(); len(args) > 1 {
		verb = args[1]
	}
	_, _ = syscall.Write(2, []byte("metsuke-guest: unknown verb \""+verb+"\"; want run\n"))
	syscall.Exit(125)
}
