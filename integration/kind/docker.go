// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// Docker is a daemon of its own, with its data root in the cache and everything else in the stand's namespaces. Its methods are
// safe for concurrent use.
type Docker struct {
	image    string   // of nodes
	stock    bool     // it is kindest/node
	registry string   // of the stand's images: PORT
	env      []string // with which docker and kind find the daemon
	daemon   *exec.Cmd
	exited   chan struct{} // closed when the daemon has ended
}

const (
	dockerSocket = "/run/docker.sock"
	dockerLog    = stand.Dir + "/dockerd.log"
	daemonStarts = 60 * time.Second
	daemonEnds   = 60 * time.Second
)

// runtimeWrapper is an OCI runtime for machines whose root lacks CAP_SYS_RESOURCE: docker run --privileged asks for every
// capability that there is, and so does docker exec.
//
//go:embed node/runc-without-sys-resource
var runtimeWrapper []byte

// StartDocker starts the daemon, removes what a run that was killed left in its data root, and sees to the node image. The first
// time it blocks for as long as a download, or the assembly of an image from what [Enter] has built, takes. The caller closes it.
func StartDocker(ctx context.Context) (*Docker, error) {
	d := &Docker{exited: make(chan struct{})}
	// kind has nodes see /lib/modules, and Docker makes what is not there.
	if _, err := os.Stat("/lib/modules"); errors.Is(err, fs.ErrNotExist) {
		lib, err := filepath.EvalSymlinks("/lib")
		if err := errors.Join(err, stand.Overlay(lib)); err != nil {
			return nil, err
		}
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	err := d.sweep(ctx)
	if err == nil {
		err = d.loadImage(ctx)
	}
	if err == nil {
		d.registry, err = stand.ServeImages()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// start writes the daemon's configuration, starts it, and waits until it serves.
func (d *Docker) start(ctx context.Context) error {
	config := map[string]any{
		"data-root": filepath.Join(cacheDir(), "docker"), "exec-root": "/run/docker", "pidfile": "/run/docker.pid",
		"hosts": []string{"unix://" + dockerSocket}, "storage-driver": "overlay2", "log-level": "warn",
	}
	if !stand.HasCapability(unix.CAP_SYS_RESOURCE) {
		wrapper := filepath.Join(stand.Dir, "runc-without-sys-resource")
		if err := os.WriteFile(wrapper, runtimeWrapper, 0o755); err != nil {
			return err
		}
		config["runtimes"] = map[string]any{"wrapped": map[string]string{"path": wrapper}}
		config["default-runtime"] = "wrapped"
	}
	content, err := json.Marshal(config)
	if err != nil {
		return err
	}
	file := filepath.Join(stand.Dir, "docker.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(dockerLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if d.env, err = environment(); err != nil {
		return err
	}
	dockerd, err := stand.Tool("docker", "dockerd")
	if err != nil {
		return err
	}
	d.daemon = exec.Command(dockerd, "--config-file", file)
	d.daemon.Stdout, d.daemon.Stderr, d.daemon.Env = log, log, d.env
	if err := d.daemon.Start(); err != nil {
		return err
	}
	go func() {
		_ = d.daemon.Wait()
		close(d.exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, daemonStarts)
	defer cancel()
	for {
		_, err := d.docker(ctx, nil, "version")
		if err == nil {
			return nil
		}
		select {
		case <-d.exited:
			err = errors.New("the daemon ended")
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
			continue
		}
		written, _ := os.ReadFile(dockerLog)
		return errors.Join(fmt.Errorf("dockerd does not serve: %w; its log:\n%s", err, written), d.stop())
	}
}

// environment is this process's, with the daemon's parts first in PATH and without proxies: kind would hand them on to nodes.
func environment() ([]string, error) {
	path := os.Getenv("PATH")
	for set, program := range map[string]string{"docker": "docker", "containerd1": "containerd", "runc": "runc", "kind": "kind", "helm": "helm"} {
		file, err := stand.Tool(set, program)
		if err != nil {
			return nil, err
		}
		path = filepath.Dir(file) + ":" + path
	}
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if upper := strings.ToUpper(name); upper != "PATH" && !strings.HasSuffix(upper, "_PROXY") && !strings.HasPrefix(upper, "DOCKER_") {
			env = append(env, v)
		}
	}
	return append(env, "PATH="+path, "DOCKER_HOST=unix://"+dockerSocket, "DOCKER_CONFIG="+stand.Dir), nil
}

// sweep removes containers, their volumes and networks: the data root is ours alone.
func (d *Docker) sweep(ctx context.Context) error {
	ids, err := d.docker(ctx, nil, "ps", "--all", "--quiet")
	if err != nil {
		return err
	}
	if ids != "" {
		if _, err := d.docker(ctx, nil, append([]string{"rm", "--force", "--volumes"}, strings.Fields(ids)...)...); err != nil {
			return err
		}
	}
	for _, what := range []string{"volume", "network"} {
		if _, err := d.docker(ctx, nil, what, "prune", "--force"); err != nil {
			return err
		}
	}
	return nil
}

// docker runs the client and returns what it writes to stdout, trimmed. What it writes to stderr is in the error.
func (d *Docker) docker(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return d.run(ctx, stdin, "docker", args...)
}

func (d *Docker) run(ctx context.Context, stdin io.Reader, set string, args ...string) (string, error) {
	cmd, err := d.command(ctx, set, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", set, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// command is the program that is called as its tool set, of Docker or kind, told where the daemon is.
func (d *Docker) command(ctx context.Context, set string, args ...string) (*exec.Cmd, error) {
	program, err := stand.Tool(set, set)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = d.env
	return cmd, nil
}

// About says what nodes are made of, for whoever reads results.
func (d *Docker) About() string {
	if d.stock {
		return "kind with " + d.image
	}
	version, err := versionOf("kubernetes")
	if err != nil {
		version = err.Error()
	}
	return "kind with a node image made here, Kubernetes " + version
}

// Close removes every container, volume and network, and ends the daemon.
func (d *Docker) Close() error { return errors.Join(d.sweep(context.Background()), d.stop()) }

func (d *Docker) stop() error {
	_ = d.daemon.Process.Signal(unix.SIGTERM)
	select {
	case <-d.exited:
		return nil
	case <-time.After(daemonEnds):
		_ = d.daemon.Process.Kill()
		<-d.exited
		return errors.New("dockerd did not end by SIGTERM")
	}
}
