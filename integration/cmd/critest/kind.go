// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"metsuke.dev/metsuke/integration/kind"
	"metsuke.dev/metsuke/integration/stand"
)

// kindNode makes all runs on one node of a kind cluster, one after the other, without its kubelet, which would stop the suite's pods.
type kindNode struct {
	options
	docker *kind.Docker
	node   *kind.Node
	config []byte // the handler's, as it was installed
}

const (
	critestInNode = "/usr/local/bin/critest"
	reportInNode  = "/var/lib/critest.json"
	bindingInNode = "/etc/metsuke/profiles.d/critest.yaml"
	// everyPod are the commands that remove them all, whoever made them.
	everyPod = "crictl rmp --force --all && crictl rm --force --all"
)

// onKind makes a cluster, and in it the runs.
func onKind(o options) (err error) {
	if o.Delegate != stand.Runc || o.Version != stand.V2 {
		return errors.New("-node kind has containerd 2 and runc")
	}
	if o.Placement == "" {
		o.Placement = stand.Host // where Metsuke puts supervisors by itself: a run takes minutes, and there is one node
	}
	o.parallel = 1
	ctx := context.Background()
	docker, err := kind.StartDocker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker.Close()) }()
	cluster, err := docker.Create(ctx, "critest", 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	k := &kindNode{options: o, docker: docker, node: cluster.Nodes[0]}
	if err := k.prepare(ctx); err != nil {
		return err
	}
	return compareRuns(o, k)
}

// prepare leaves a containerd with Metsuke's handler, and no pods.
func (k *kindNode) prepare(ctx context.Context) error {
	critest, err := stand.Tool("critools", "critest")
	if err != nil {
		return err
	}
	if err := errors.Join(k.node.Copy(critestInNode, 0o755, critest), k.node.Install(ctx)); err != nil {
		return err
	}
	if k.config, err = os.ReadFile(k.node.Path(kind.ConfigPath)); err != nil {
		return err
	}
	_, err = k.node.Script(ctx, "systemctl stop kubelet && "+everyPod)
	return err
}

func (k *kindNode) about() string { return k.docker.About() }

func (k *kindNode) make(r run) error {
	ctx := context.Background()
	handler := stand.Runc.Name
	if r.handler != "" {
		handler = kind.Handler
		config := string(k.config) + fmt.Sprintf("\n[supervisor]\nplacement = %q\n[deadlines]\narmed = \"2m\"\n", r.placement)
		err := errors.Join(
			k.node.Write(kind.ConfigPath, 0o644, []byte(config)),
			k.node.Write(bindingInNode, 0o644, []byte(stand.BindAll(r.profile))),
		)
		if err != nil {
			return err
		}
	}
	log, err := k.log(r)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	var exit *exec.ExitError
	if err := k.node.Run(ctx, log, append([]string{critestInNode}, k.arguments(handler, "/run/containerd/containerd.sock", reportInNode)...)...); err != nil && !errors.As(err, &exit) {
		return err
	}
	report, err := os.ReadFile(k.node.Path(reportInNode))
	if err != nil {
		return fmt.Errorf("run %s: %w (see %s)", r, err, log.Name())
	}
	if err := errors.Join(os.WriteFile(k.file(r, ".json"), report, 0o644), os.Remove(k.node.Path(reportInNode))); err != nil {
		return err
	}
	return k.checkLeaks(ctx, r)
}

// checkLeaks is the stand's, on the node.
func (k *kindNode) checkLeaks(ctx context.Context, r run) error {
	if _, err := k.node.Script(ctx, everyPod); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leakPatience)
	defer cancel()
	left, err := k.node.Leaks(ctx)
	if err != nil || r.handler == "" {
		return err // what the delegate alone leaves is not ours
	}
	var problems []error
	for _, leak := range left {
		problems = append(problems, fmt.Errorf("run %s: left behind on the node: %s", r, leak))
	}
	return errors.Join(problems...)
}
