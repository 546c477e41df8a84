// SPDX-License-Identifier: Apache-2.0

// Command metsuke is the command line of Metsuke: it checks and shows profiles and reads audit streams.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
