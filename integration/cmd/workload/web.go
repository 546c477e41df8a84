// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"syscall"
)

// masterTitle is how nginx's first process shows in ps, which critest looks for.
const masterTitle = "nginx: master process "

// web serves a page on the port given, as a process that looks like nginx: its title, its pid file.
func web(args []string) int {
	if len(args) != 1 {
		return 2
	}
	if os.Args[0] == "nginx" || os.Args[0][0] == '/' {
		// The title is the argument vector, so it takes an exec to change it; comm stays "nginx" by the file's name.
		path := os.Args[0]
		err := syscall.Exec(path, []string{masterTitle + path, args[0]}, os.Environ())
		return fatal(err)
	}
	if err := os.WriteFile("/var/run/nginx.pid", []byte(fmt.Sprintln(os.Getpid())), 0o644); err != nil {
		return fatal(err)
	}
	fmt.Println("httpd: serving on port", args[0])
	return fatal(http.ListenAndServe(":"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "Welcome to the stand.")
		fmt.Println("httpd:", r.Method, r.URL.Path)
	})))
}
