// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/containerd/log"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/answer"
	"metsuke.dev/metsuke/node/doctor"
	"metsuke.dev/metsuke/node/doctor/report"
)

// answers starts to answer the controller's questions where --listen says, and returns where that is, and how to end it.
func (f *agentFlags) answers(ctx context.Context, client dynamic.Interface) (end func(), at *v1alpha1.Endpoint, err error) {
	if f.listen == "" {
		return func() {}, nil, nil
	}
	server, err := answer.New(answer.Config{
		Node: f.node, Root: f.place.Root, Controllers: answer.Controllers(client), Doctor: f.report,
		Directories: func() (config.Directories, error) { return directories(f.place.Root) },
	})
	if err != nil {
		return nil, nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return nil, nil, fmt.Errorf("--listen: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(ctx, l); err != nil {
			log.G(ctx).WithError(err).Error("readers are not answered any more")
		}
	}()
	return func() {
		stop()
		<-ended
	}, &v1alpha1.Endpoint{Address: l.Addr().String(), Certificate: server.Digest()}, nil
}

// directories are those of the node's default configuration.
func directories(root string) (config.Directories, error) {
	c, err := config.Load(filepath.Join(root, config.DefaultPath))
	if errors.Is(err, config.ErrAbsent) {
		c, err = config.Default(), nil
	}
	if err != nil {
		return config.Directories{}, err
	}
	return c.Directories, nil
}

// report looks at the node without a canary: a reader's question starts no pod.
func (f *agentFlags) report(ctx context.Context) (*report.Report, error) {
	n, err := doctor.Open(ctx, f.place)
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.Close() }()
	r, err := doctor.Run(ctx, n, doctor.Options{NoCanary: true})
	if err != nil {
		return nil, err
	}
	return r.Plain(), nil
}
