// SPDX-License-Identifier: Apache-2.0

// Command containerd-shim-metsuke-v2 is started by containerd for each pod whose runtime is io.containerd.metsuke.v2.
package main

import (
	"os"

	"metsuke.dev/metsuke/shim"
)

func main() {
	os.Exit(shim.Program().Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
