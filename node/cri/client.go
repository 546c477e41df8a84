// SPDX-License-Identifier: Apache-2.0

// Package cri is a small client of containerd's CRI, the service that the kubelet speaks to (k8s.io/cri-api, runtime/v1):
// which handlers are in force, which pods there are, and a pod of our own.
//
// What comes back is a stranger's, since pods choose names and annotations: it is bounded here, and not escaped.
package cri

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultEndpoint is where containerd serves CRI unless its configuration says otherwise (grpc.address).
const DefaultEndpoint = "unix:///run/containerd/containerd.sock"

// maxAnswer bounds one answer in bytes. It is the kubelet's bound (pkg/kubelet/cri/remote, maxMsgSize), so what the kubelet can
// list can be listed here.
const maxAnswer = 16 << 20

// Client asks one containerd. Each method is one or a few calls, blocks until they are answered or its context ends, and is safe
// for concurrent use. Its errors wrap those of gRPC, so google.golang.org/grpc/status finds their codes.
type Client struct {
	dial    func(context.Context) (net.Conn, error)
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
}

// Dial connects to a unix socket, given as an absolute path or as unix:///path. It asks for the version, so that a socket at which
// nobody serves CRI is an error here.
func Dial(ctx context.Context, endpoint string) (*Client, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("CRI endpoint %q: expected an absolute path, or unix:// and one", endpoint)
	}
	// The path goes to the dialer and not into the target, where gRPC would read it as a URL.
	dial := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", path) }
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a local socket: its mode is what guards it
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("CRI endpoint %s: %w", path, err)
	}
	c := &Client{dial: dial, conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn)}
	if _, err := c.Version(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("CRI endpoint %s: %w", path, err)
	}
	return c, nil
}

// Close ends the connection; calls that wait for an answer fail.
func (c *Client) Close() error { return c.conn.Close() }

// Version is who answers.
type Version struct {
	Runtime string // "containerd"
	Version string // of the runtime: "v2.4.2", or "1.7.35"
}

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (Version, error) {
	v, err := c.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return Version{}, fmt.Errorf("ask for the version: %w", err)
	}
	return Version{Runtime: v.GetRuntimeName(), Version: v.GetRuntimeVersion()}, nil
}
