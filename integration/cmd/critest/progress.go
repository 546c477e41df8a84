// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// progressInterval is how often something is said.
const progressInterval = 20 * time.Second

// reportProgress says now and then how far each run is, until the function that it returns is called.
func reportProgress(w io.Writer, dir string, runs []run) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		begin, said := time.Now(), ""
		for {
			select {
			case <-done:
				return
			case <-time.After(progressInterval):
			}
			var words []string
			for _, r := range runs {
				if log, err := os.ReadFile(filepath.Join(dir, r.String()+".log")); err == nil {
					words = append(words, r.String()+" "+progress(log))
				}
			}
			if line := strings.Join(words, ", "); line != said {
				said = line
				_, _ = fmt.Fprintf(w, "critest: %4.0f s: %s\n", time.Since(begin).Seconds(), line)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

var (
	// total is Ginkgo's line about how much it is going to do.
	total = regexp.MustCompile(`Will run \d+ of (\d+) specs`)
	// ended are its marks for specs that have ended or are skipped.
	ended = regexp.MustCompile(`(?m)^[•S]+( \[|$)`)
)

// progress reads how far a run is from what Ginkgo has written.
func progress(log []byte) string {
	specs := total.FindSubmatch(log)
	if specs == nil {
		return "starts"
	}
	n := 0
	for _, marks := range ended.FindAll(log, -1) {
		n += bytes.Count(marks, []byte("•")) + bytes.Count(marks, []byte("S"))
	}
	return fmt.Sprintf("%d/%s", n, specs[1])
}
