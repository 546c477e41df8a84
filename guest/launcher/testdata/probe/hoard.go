// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// hoard sends descriptors that nobody receives until the end of its input.
func hoard(number string) {
	n, err := strconv.Atoi(number)
	for err == nil && n > 0 {
		var pair [2]int
		if pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0); err != nil {
			break
		}
		some := make([]int, min(n, 250)) // of descriptor 0; a message takes 253
		err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(some...), nil, 0)
		n -= len(some)
	}
	if err != nil {
		fmt.Println("hoard:", err)
		os.Exit(1)
	}
	fmt.Println("hoarded")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
