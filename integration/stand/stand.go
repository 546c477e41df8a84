// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options say what a stand is made of. The zero value is containerd 2.4 with the handler "runc" alone.
type Options struct {
	Version     Version   // default V2
	Delegate    *Delegate // default Runc; the handler of its name is it alone
	Handlers    []Handler // Metsuke's runtime handlers, all with that delegate
	Environment []string  // added to containerd's, and so to the shims'
}

// Stand is one containerd with its images and its network. Its methods are safe for concurrent use, except those that
// start, stop and close containerd.
type Stand struct {
	Version  Version
	Delegate *Delegate
	Dir      string                          // everything of this containerd
	Runtime  runtimeapi.RuntimeServiceClient // CRI
	Images   runtimeapi.ImageServiceClient   // CRI

	options    Options
	installed  *installation // of the delegate
	running    Version       // of containerd; another one than Version after Upgrade
	registry   string        // its URL
	containerd *exec.Cmd
	exited     chan struct{} // closed when containerd has ended
	conn       *grpc.ClientConn
}

// shared is the registry of all stands of a program; it lives as long as the program.
var shared *imageRegistry

// Start starts a containerd of the version, with the handlers. One stand of each version may run at a time.
func Start(ctx context.Context, options Options) (*Stand, error) {
	if options.Version == "" {
		options.Version = V2
	}
	if options.Delegate == nil {
		options.Delegate = Runc
	}
	if err := startShared("127.0.0.1"); err != nil {
		return nil, err
	}
	s := &Stand{
		Version:  options.Version,
		Delegate: options.Delegate,
		running:  options.Version,
		Dir:      filepath.Join(Dir, options.Version.Set()),
		options:  options,
		registry: shared.url(),
	}
	if _, err := os.Stat(s.Dir); err == nil {
		return nil, fmt.Errorf("a stand of containerd %s runs already", s.Version)
	}
	// Root of a user namespace goes through here to its root file system.
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	installed, err := options.Delegate.install(s)
	if err != nil {
		return nil, fmt.Errorf("delegate %s: %w", options.Delegate.Name, err)
	}
	s.installed = installed
	if err := s.writeConfig(); err != nil {
		return nil, errors.Join(err, installed.close())
	}
	conn, err := grpc.NewClient("unix://"+s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		// containerd is tried until it serves, without a second's pauses.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 10 * time.Second,
		}))
	if err != nil {
		return nil, errors.Join(err, installed.close())
	}
	s.conn = conn
	s.Runtime = runtimeapi.NewRuntimeServiceClient(conn)
	s.Images = runtimeapi.NewImageServiceClient(conn)
	if err := s.StartContainerd(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ServeImages serves the images of all stands to containerds that are none, at every address of the stand's network, and returns the
// port. A program that starts a [Stand] too has them at loopback alone, and cannot.
func ServeImages() (port string, err error) {
	if shared != nil {
		return "", errors.New("the images are served at loopback already")
	}
	if err := startShared("0.0.0.0"); err != nil {
		return "", err
	}
	_, port, err = net.SplitHostPort(shared.address)
	return port, err
}

// startShared starts the registry, filled, with a program's first stand.
func startShared(host string) error {
	if shared != nil {
		return nil
	}
	images, err := standardImages()
	if err != nil {
		return err
	}
	registry, err := startRegistry(host)
	if err != nil {
		return err
	}
	for reference, image := range images {
		if err := registry.add(reference, image); err != nil {
			return err
		}
	}
	shared = registry
	return nil
}

// AddImage puts an image into the registry, under a reference such as "stand.test/agent:1".
func (s *Stand) AddImage(reference string, image Image) error {
	built, err := image.Build()
	if err != nil {
		return err
	}
	return shared.add(reference, built)
}

// Endpoint is the path of containerd's socket: CRI and containerd's own API.
func (s *Stand) Endpoint() string { return filepath.Join(s.Dir, "containerd.sock") }

// Containerd is a client of containerd's own API, in CRI's namespace "k8s.io". The caller closes it.
func (s *Stand) Containerd() (*containerd.Client, error) {
	return containerd.New(s.Endpoint(), containerd.WithDefaultNamespace("k8s.io"))
}

func (s *Stand) ready(ctx context.Context) error {
	status, err := s.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range status.GetStatus().GetConditions() {
		required := condition.GetType() == runtimeapi.RuntimeReady || condition.GetType() == runtimeapi.NetworkReady
		if required && !condition.GetStatus() {
			return fmt.Errorf("%s: %s", condition.GetReason(), condition.GetMessage())
		}
	}
	return nil
}

// Close removes every pod, ends containerd, and removes the stand's directory. What goes wrong, and what the pods left
// behind, is in the error.
func (s *Stand) Close() error {
	var problems []error
	if s.containerd != nil {
		problems = append(problems, s.RemoveAllPods(context.Background()), s.StopContainerd(unix.SIGTERM))
	}
	problems = append(problems, s.conn.Close(), s.installed.close())
	// What is still mounted below is reported as a leak by the caller's check; it must not keep the directory.
	for _, mount := range mountsBelow(s.Dir) {
		problems = append(problems, fmt.Errorf("left mounted: %s", mount))
		_ = unix.Unmount(mount, unix.MNT_DETACH)
	}
	problems = append(problems, os.RemoveAll(s.Dir))
	return errors.Join(problems...)
}
