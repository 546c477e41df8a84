// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/stream"
)

// pageFile is where a page goes.
type pageFile struct {
	path    string    // empty: out
	out     io.Writer // standard output
	replace bool      // what is there
}

// newPageFile says where the page of a pod goes, before it takes long to make it: the file that was named, - for standard output, or else
// one that has the pod's name.
func newPageFile(cmd *cobra.Command, named, pod string) (f pageFile, err error) {
	switch named {
	case "-":
		return pageFile{out: cmd.OutOrStdout()}, nil
	case "":
		f.path = stream.ContainerName(pod[strings.LastIndexByte(pod, '/')+1:]) + ".html"
	default:
		f.path, f.replace = named, true
	}
	if dir, err := os.Stat(filepath.Dir(f.path)); err != nil || !dir.IsDir() {
		return f, fmt.Errorf("there is no directory %s to write to", filepath.Dir(f.path))
	}
	info, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return f, err
	case !f.replace:
		return f, fmt.Errorf("%s is there already: -o %s replaces it", f.path, f.path)
	case !info.Mode().IsRegular():
		return f, fmt.Errorf("%s is not a regular file; -o - writes to standard output", f.path)
	}
	return f, nil
}

func (f pageFile) name() string {
	if f.path == "" {
		return "standard output"
	}
	return f.path
}

// write writes the page: all of it, or nothing. It is not interrupted.
func (f pageFile) write(page []byte) (err error) {
	if f.path == "" {
		_, err := f.out.Write(page)
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM)
	defer signal.Stop(signals)
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".metsuke-report-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if removed := os.Remove(temp.Name()); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	_, err = temp.Write(page)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if f.replace {
		return os.Rename(temp.Name(), f.path)
	}
	return os.Link(temp.Name(), f.path) // which replaces nothing
}
