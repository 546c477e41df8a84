// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"metsuke.dev/metsuke/integration/stand"
)

// Shell runs a script of bash outside of the nodes, in dir, as an administrator's: docker, kind, kubectl and helm are there and find
// this cluster. It returns what the script writes, both streams; the error is about its exit status.
func (c *Cluster) Shell(ctx context.Context, dir, script string) (string, error) {
	programs := filepath.Join(stand.Dir, c.Name+"-programs")
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return "", err
	}
	kubectl := filepath.Join(programs, "kubectl")
	if err := os.Remove(kubectl); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	// Both node images have it, and it is linked statically.
	if err := os.Symlink(c.Nodes[0].Path("/usr/bin/kubectl"), kubectl); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "bash", "-uo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(slices.Clone(c.docker.env), "KUBECONFIG="+c.Kubeconfig)
	for i, v := range cmd.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			cmd.Env[i] = "PATH=" + programs + ":" + path
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w", script, err)
	}
	return string(out), err
}

// BuildImage builds the image of Metsuke's binaries in a directory, as make image does.
func (d *Docker) BuildImage(ctx context.Context, dockerfile, name, binaries string) error {
	_, err := d.docker(ctx, nil, "build", "--quiet", "--file", dockerfile, "--tag", name, binaries)
	return err
}
