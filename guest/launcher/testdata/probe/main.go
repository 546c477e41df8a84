// SPDX-License-Identifier: Apache-2.0

// Command probe is a workload: it prints what it was given, and waits for the end of its input if
// its first argument is "wait". With "old-kernel" it runs the program in its other arguments instead, with "read" it only opens
// a file, and with "hoard" it has as many descriptors on their way as its second argument says.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "old-kernel" {
		oldKernel(os.Args[2:])
	}
	if len(os.Args) > 2 && os.Args[1] == "read" {
		f, err := os.Open(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		f.Close()
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "hoard" {
		hoard(os.Args[2])
	}
	for i, a := range os.Args {
		fmt.Printf("arg %d %q\n", i, a)
	}
	for _, v := range os.Environ() {
		fmt.Printf("env %q\n", v)
	}
	fmt.Printf("pid %d\n", os.Getpid())
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		fmt.Println("waiting")
		io.Copy(io.Discard, os.Stdin)
	}
}
