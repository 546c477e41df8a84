// SPDX-License-Identifier: Apache-2.0

// The Go runtime need not find out how many CPUs the container may use, which it reads from files
// under /proc and /sys: it would cost start-up time, and the launcher sets its own number.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command metsuke-guest is Metsuke's helper in the container. It is not for people to call.
//
//	metsuke-guest run TOKEN -- ARGUMENTS    become the workload, under the supervisor's filter
//	metsuke-guest audit                     be the supervisor, as the host says on stdin
//	metsuke-guest version                   print the version, for metsuke doctor
package main

import (
	"syscall"

	"metsuke.dev/metsuke/guest/launcher"
	"metsuke.dev/metsuke/guest/resident"
	"metsuke.dev/metsuke/version"
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
	switch verb {
	case "audit":
		resident.Main()
	case "version":
		_, _ = syscall.Write(1, []byte(version.String()+"\n"))
		syscall.Exit(0)
	}
	_, _ = syscall.Write(2, []byte("metsuke-guest: unknown verb \""+verb+"\"; want run, audit or version\n"))
	syscall.Exit(125)
}
