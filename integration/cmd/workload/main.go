// SPDX-License-Identifier: Apache-2.0

// Command workload is what the stand's containers run: one static binary that tries one thing and says what came of it.
// It also stands in for programs that critest expects in its images, under their names.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// A verb does its work and returns the process's exit status.
type verb struct {
	doc string
	run func(args []string) int
}

func verbs() map[string]verb {
	return map[string]verb{
		"pause":       {"wait for a signal, reaping orphans", pause},
		"syscall":     {"NAME [ARG...]: make a system call, print its result or errno", systemCall},
		"fork":        {"N: start N processes that wait; print how many came to be; then end them", fork},
		"memory":      {"MIB: touch so much memory; print ok", memory},
		"open":        {"PATH N [rw]: open and close a file N times; print nanoseconds a turn", open},
		"flood":       {"NAME N: make a call N times without arguments; print how often it failed", flood},
		"build":       {"DIR FILES PROCESSES: do what a build does; print nanoseconds", build},
		"status":      {"print /proc/self/status", func([]string) int { return cat("/proc/self/status") }},
		"exit":        {"STATUS: exit with it", exit},
		"foreign":     {"NUMBER: make a system call of 32-bit x86; print the result", foreign},
		"hijack":      {"SECONDS: look for a launcher whose memory can be written, and on until one refuses", hijack},
		"resident":    {"ATTEMPT [ARG...]: attack Metsuke's supervisor in this container, print what came of it", resident},
		"impersonate": {"N SECONDS: run the helper with the tokens of N launchers", impersonate},
		"exchange":    {"NAME NAME SECONDS: swap two names without pause", exchange},
		"kill":        {"SIGNAL: end by this signal number", kill},
	}
}

func main() {
	// The names under which critest's images have it.
	switch filepath.Base(os.Args[0]) {
	case "ipcs":
		os.Exit(cat("/proc/sysvipc/shm"))
	case "pgrep":
		os.Exit(pgrep(os.Args[1:]))
	case "nonewprivs":
		fmt.Printf("Effective uid: %d\n", os.Geteuid())
		return
	case "nginx":
		os.Exit(web(os.Args[1:]))
	}
	if strings.HasPrefix(os.Args[0], masterTitle) {
		os.Exit(web(os.Args[1:]))
	}
	all := verbs()
	if len(os.Args) < 2 {
		usage(all)
	}
	v, ok := all[os.Args[1]]
	if !ok {
		usage(all)
	}
	os.Exit(v.run(os.Args[2:]))
}

func usage(all map[string]verb) {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(os.Stderr, "workload %s %s\n", name, all[name].doc)
	}
	os.Exit(2)
}

func fatal(err error) int {
	fmt.Fprintln(os.Stderr, "workload:", err)
	return 1
}

// pause is the sandbox's process: it ends on SIGTERM and SIGINT, and reaps what is given to it.
func pause([]string) int {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-ends:
			return 0
		case <-children:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

func cat(path string) int {
	content, err := os.ReadFile(path)
	if err != nil {
		return fatal(err)
	}
	if _, err := os.Stdout.Write(content); err != nil {
		return fatal(err)
	}
	return 0
}

// pgrep prints the processes whose name is the argument.
func pgrep(args []string) int {
	found := 1
	directories, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil || len(args) != 1 {
		return 2
	}
	for _, file := range directories {
		if comm, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(comm)) == args[0] {
			fmt.Println(filepath.Base(filepath.Dir(file)))
			found = 0
		}
	}
	return found
}

func exit(args []string) int {
	var status int
	if _, err := fmt.Sscan(strings.Join(args, " "), &status); err != nil {
		return fatal(err)
	}
	return status
}

func kill(args []string) int {
	var number int
	if _, err := fmt.Sscan(strings.Join(args, " "), &number); err != nil {
		return fatal(err)
	}
	signal.Reset(syscall.Signal(number))
	if err := syscall.Kill(os.Getpid(), syscall.Signal(number)); err != nil {
		return fatal(err)
	}
	time.Sleep(time.Second)
	return fatal(fmt.Errorf("signal %d did not end this process", number))
}
