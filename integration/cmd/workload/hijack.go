// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hijack looks for a process that begins to run the launcher and whose memory it can open for writing: it has no filter
// yet, and whoever writes its memory decides what it does instead. It looks so many seconds, and on until there was a process to
// refuse: on a busy machine the first may come late. It prints what it found.
func hijack(args []string) int {
	if len(args) != 1 {
		return fatal(errors.New("hijack needs a number of seconds"))
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return fatal(err)
	}
	const ahead = 8
	refused, opened := 0, 0
	fmt.Println("ready")
	for end := time.Now().Add(time.Duration(seconds) * time.Second); opened == 0 && (refused == 0 || time.Now().Before(end)); {
		last, err := lastPID()
		if err != nil {
			return fatal(err)
		}
		for pid := max(2, last-ahead); pid <= last+ahead; pid++ {
			if pid == os.Getpid() {
				continue
			}
			fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				refused++
			}
			if err != nil {
				continue
			}
			// What ran there before the helper was the delegate, and what runs after it is filtered.
			if exe, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); isHelper(exe) {
				opened++
				fmt.Println("opened", pid)
			}
			_ = unix.Close(fd)
		}
	}
	fmt.Println("refused", refused > 0)
	return 0
}

// lastPID is the number that the pid namespace gave away last (proc_loadavg(5)).
func lastPID() (int, error) {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(content))
	return strconv.Atoi(fields[len(fields)-1])
}
