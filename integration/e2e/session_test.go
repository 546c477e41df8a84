// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/containerd/containerd/v2/pkg/cio"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var sessions atomic.Int64

// execEdited runs an exec session by containerd's own API, whose process is the container's, edited: CRI has no say in most of it.
// It returns what the session wrote on stdout. An exit status other than 0, or words on stderr, are an error.
func (c *container) execEdited(edit func(*specs.Process)) (string, error) {
	ctx := c.p.h.ctx
	client, err := c.p.h.Containerd()
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Close() }()
	loaded, err := client.LoadContainer(ctx, c.ID)
	if err != nil {
		return "", err
	}
	spec, err := loaded.Spec(ctx)
	if err != nil {
		return "", err
	}
	task, err := loaded.Task(ctx, nil)
	if err != nil {
		return "", err
	}
	edit(spec.Process)
	var out, complaints bytes.Buffer
	exec, err := task.Exec(ctx, fmt.Sprint("session-", sessions.Add(1)), spec.Process, cio.NewCreator(cio.WithStreams(nil, &out, &complaints)))
	if err != nil {
		return "", err
	}
	exited, err := exec.Wait(ctx)
	if err != nil {
		return "", err
	}
	if err := exec.Start(ctx); err != nil {
		return "", err
	}
	status := <-exited
	exec.IO().Wait() // Delete does not
	if _, err := exec.Delete(ctx); err != nil {
		return "", err
	}
	if status.ExitCode() != 0 || complaints.Len() > 0 {
		return "", errors.Join(fmt.Errorf("%q: status %d, stderr %q", spec.Process.Args, status.ExitCode(), complaints.String()), status.Error())
	}
	return out.String(), nil
}
