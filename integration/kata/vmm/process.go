// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// process is a child of the daemon, which does not outlive it.
type process struct {
	cmd   *exec.Cmd
	said  chan struct{} // closed when it has written the text that was waited for
	ended chan struct{} // closed when it has ended
	err   error         // why, then; never nil
}

// run starts a command. What it writes is added to the log. The files are its descriptors 3 and up.
func (d *daemon) run(command []string, log, text string, files ...*os.File) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(command[0], command[1:]...), said: make(chan struct{}), ended: make(chan struct{})}
	out := &watcher{out: file, text: []byte(text), seen: p.said}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = out, out, files
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	d.spawn <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), file.Close())
		if p.err == nil {
			p.err = errors.New("ended by itself")
		}
		close(p.ended)
	}()
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// watcher passes on what is written to it, and closes seen when that had the text in it.
type watcher struct {
	out  io.Writer
	text []byte // nil when it has been seen
	tail []byte // of what was written, as long as the text may begin in it
	seen chan struct{}
}

func (w *watcher) Write(data []byte) (int, error) {
	n, err := w.out.Write(data) // first: who has seen the text finds it there
	if w.text == nil {
		return n, err
	}
	w.tail = append(w.tail, data...)
	if bytes.Contains(w.tail, w.text) {
		w.text, w.tail = nil, nil
		close(w.seen)
	} else {
		w.tail = w.tail[max(0, len(w.tail)-len(w.text)):]
	}
	return n, err
}
