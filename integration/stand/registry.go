// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// imageRegistry serves images from memory, in the stand's network namespace, under every registry's name.
type imageRegistry struct {
	address string
}

func startRegistry(host string) (*imageRegistry, error) {
	listener, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("image registry: %w", err)
	}
	go func() { _ = http.Serve(listener, registry.New(registry.Logger(log.New(io.Discard, "", 0)))) }()
	return &imageRegistry{address: listener.Addr().String()}, nil
}

func (r *imageRegistry) url() string { return "http://" + r.address }

// add stores an image under a reference such as "registry.k8s.io/pause:3.10.1", of which the registry's part is dropped.
func (r *imageRegistry) add(reference string, image v1.Image) error {
	_, repository, ok := strings.Cut(reference, "/")
	if !ok {
		return fmt.Errorf("image reference %q names no registry", reference)
	}
	target, err := name.ParseReference(r.address+"/"+repository, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(target, image); err != nil {
		return fmt.Errorf("store image %s: %w", reference, err)
	}
	return nil
}
