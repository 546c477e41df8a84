// SPDX-License-Identifier: Apache-2.0

// Command probe is what the containers of the tests run: one word says what it does.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(word string, arguments []string) error {
	switch word {
	case "sleep": // does nothing until it is killed
		time.Sleep(time.Hour)
	case "heed": // exits with 3 when it is asked to end
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		os.Exit(3)
	case "drop": // as what never heard of signals
		if err := byDefault(syscall.SIGTERM); err != nil {
			return err
		}
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "exit":
		var code int
		if _, err := fmt.Sscan(arguments[0], &code); err != nil {
			return err
		}
		os.Exit(code)
	case "cat": // its input, or files
		if len(arguments) == 0 {
			_, err := io.Copy(os.Stdout, os.Stdin)
			return err
		}
		for _, name := range arguments {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Print(string(text))
		}
	case "write": // a file's new content
		return os.WriteFile(arguments[0], []byte(arguments[1]), 0)
	case "ls": // a file's mode, owner, size and the target of a link
		info, err := os.Lstat(arguments[0])
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		link, _ := os.Readlink(arguments[0])
		fmt.Println(info.Mode(), owner.Uid, owner.Gid, info.Size(), link)
	case "namespaces":
		for _, name := range arguments {
			link, err := os.Readlink("/proc/self/ns/" + name)
			if err != nil {
				return err
			}
			fmt.Println(link)
		}
	case "move": // into a mount, a uts and an ipc namespace of its own
		runtime.LockOSThread() // the thread that moves is the one that executes
		if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC); err != nil {
			return err
		}
		return syscall.Exec("/proc/self/exe", []string{"probe", "moved"}, nil)
	case "moved":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "size": // of its terminal, when that changes
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGWINCH)
		fmt.Println("ready")
		<-c
		rows, columns, err := terminalSize()
		if err != nil {
			return err
		}
		fmt.Println(rows, columns)
	case "mkdir": // what the call says, whether or not it was made
		fmt.Println(syscall.Mkdir(arguments[0], 0o755))
	case "below": // copies its input, in a new cgroup
		if err := os.Mkdir(arguments[0], 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(arguments[0]+"/cgroup.procs", []byte("0"), 0); err != nil {
			return err
		}
		fmt.Println("ready")
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "limit": // writes a file of the container's own cgroup, which only one who is in a namespace below it may open
		group := filepath.Dir(arguments[0]) + "/opener"
		if err := os.Mkdir(group, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(group+"/cgroup.procs", []byte("0"), 0); err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
			return err
		}
		return os.WriteFile(arguments[0], []byte(arguments[1]), 0)
	case "limits":
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			return err
		}
		fmt.Println(l.Max)
	case "leave": // ends, and leaves a child that holds its output open
		child := exec.Command("/proc/self/exe", "sleep")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println("left")
	case "eat": // memory, in MiB
		var all [][]byte
		for {
			all = append(all, []byte(strings.Repeat("x", 1<<20)))
		}
	default:
		return fmt.Errorf("probe does not know %q", word)
	}
	return nil
}
