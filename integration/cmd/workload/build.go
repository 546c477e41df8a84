// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// build does what a build does to the kernel, without the compiler's own time: writes, reads, renames and removes small
// files, and starts programs. It prints how long it took, in nanoseconds.
func build(args []string) int {
	if len(args) != 3 {
		return fatal(errors.New("build needs a directory, a number of files and a number of processes"))
	}
	files, err := strconv.Atoi(args[1])
	if err != nil {
		return fatal(err)
	}
	processes, err := strconv.Atoi(args[2])
	if err != nil {
		return fatal(err)
	}
	begin := time.Now()
	if err := buildTree(args[0], files, processes); err != nil {
		return fatal(err)
	}
	fmt.Println(time.Since(begin).Nanoseconds())
	return 0
}

func buildTree(dir string, files, processes int) error {
	content := make([]byte, 4096)
	for i := range files {
		sub := filepath.Join(dir, strconv.Itoa(i%50))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		source, object := filepath.Join(sub, fmt.Sprintf("%d.c", i)), filepath.Join(sub, fmt.Sprintf("%d.o", i))
		if err := os.WriteFile(source, content, 0o644); err != nil {
			return err
		}
		read, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(object+".tmp", read, 0o644); err != nil {
			return err
		}
		if err := os.Rename(object+".tmp", object); err != nil {
			return err
		}
		if processes > 0 && i%max(1, files/processes) == 0 {
			if err := exec.Command("/bin/sh", "-c", "cat "+source+" | wc -c").Run(); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}
