// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodConfig says how a pod is to be run. The zero value is a pod under the delegate alone, with a network, in namespace "default".
type PodConfig struct {
	Handler     string // runtime handler; "" is the delegate alone
	Name        string // made up when empty
	Namespace   string // "" is "default"
	Annotations map[string]string
	HostNetwork bool                               // the stand's network instead of one of its own; quicker
	Modify      func(*runtimeapi.PodSandboxConfig) // has the last word on what CRI gets
}

// Pod is a sandbox that runs.
type Pod struct {
	ID     string
	Config *runtimeapi.PodSandboxConfig

	stand   *Stand
	handler string
}

var podCount atomic.Uint64

// RunPod is CRI's RunPodSandbox. Remove ends what it made.
func (s *Stand) RunPod(ctx context.Context, config PodConfig) (*Pod, error) {
	number := podCount.Add(1)
	if config.Name == "" {
		config.Name = fmt.Sprintf("pod-%d", number)
	}
	if config.Namespace == "" {
		config.Namespace = "default"
	}
	if config.Handler == "" {
		config.Handler = s.Delegate.Name
	}
	uid := fmt.Sprintf("00000000-0000-4000-8000-%012d", number)
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: config.Name, Namespace: config.Namespace, Uid: uid},
		Hostname:     config.Name,
		LogDirectory: filepath.Join(s.Dir, "logs", config.Namespace+"_"+config.Name+"_"+uid),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{s.Gateway()}},
		// What the kubelet puts there, and what a shim has to know the pod by.
		Labels: map[string]string{
			"io.kubernetes.pod.name": config.Name, "io.kubernetes.pod.namespace": config.Namespace, "io.kubernetes.pod.uid": uid,
		},
		Annotations: config.Annotations,
		Linux:       &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{}},
	}
	if config.HostNetwork {
		sandbox.Hostname = ""
		sandbox.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	}
	if config.Modify != nil {
		config.Modify(sandbox)
	}
	if err := os.MkdirAll(sandbox.GetLogDirectory(), 0o755); err != nil {
		return nil, err
	}
	if err := s.Pull(ctx, ImagePause); err != nil {
		return nil, err
	}
	reply, err := s.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: config.Handler})
	if err != nil {
		return nil, fmt.Errorf("run pod %s under %s: %w", config.Name, config.Handler, err)
	}
	return &Pod{ID: reply.GetPodSandboxId(), Config: sandbox, stand: s, handler: config.Handler}, nil
}

// Pull makes sure that containerd has the image.
func (s *Stand) Pull(ctx context.Context, reference string) error {
	spec := &runtimeapi.ImageSpec{Image: reference}
	status, err := s.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err == nil && status.GetImage() != nil {
		return nil
	}
	if _, err := s.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec}); err != nil {
		return fmt.Errorf("pull %s: %w", reference, err)
	}
	return nil
}

// Remove stops the pod and removes it with its containers.
func (p *Pod) Remove(ctx context.Context) error { return p.stand.removePod(ctx, p.ID, p.handler) }

// Stop stops the pod's containers and its sandbox.
func (p *Pod) Stop(ctx context.Context) error {
	_, err := p.stand.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.ID})
	return err
}

// Status is CRI's PodSandboxStatus.
func (p *Pod) Status(ctx context.Context) (*runtimeapi.PodSandboxStatus, error) {
	reply, err := p.stand.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	return reply.GetStatus(), err
}

func (s *Stand) removePod(ctx context.Context, id, handler string) error {
	if _, err := s.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod %.12s: %w", id, err)
	}
	if _, err := s.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod %.12s: %w", id, err)
	}
	if handler == s.Delegate.Name {
		return s.removeShimSockets(id)
	}
	return nil
}

// removeShimSockets removes the sockets of a pod's shim, where containerd's library for shims puts them
// (pkg/shim/util_unix.go). A shim that is killed leaves one of them, and Kata's ends by killing itself
// (pkg/containerd-shim-v2/service.go, Shutdown).
func (s *Stand) removeShimSockets(id string) error {
	for _, name := range []string{"", "debug"} {
		sum := sha256.Sum256([]byte(filepath.Join(s.Endpoint(), "k8s.io", id, name)))
		if err := os.Remove(fmt.Sprintf("/run/containerd/s/%x", sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// RemoveAllPods stops and removes every pod that containerd knows.
func (s *Stand) RemoveAllPods(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	list, err := s.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	// A removal waits much and works little, so some at a time.
	const atOnce = 8
	problems := make([]error, len(list.GetItems()))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, item := range list.GetItems() {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			problems[i] = s.removePod(ctx, item.GetId(), item.GetRuntimeHandler())
		})
	}
	all.Wait()
	return errors.Join(problems...)
}

// ContainerConfig says how a container is to be run.
type ContainerConfig struct {
	Name    string                              // "" is "main"
	Image   string                              // "" is ImageBusybox
	Command []string                            // replaces the image's entry point
	Args    []string                            // replaces the image's command
	Env     []string                            // NAME=VALUE
	Limits  *runtimeapi.LinuxContainerResources // what the pod asks for
	Modify  func(*runtimeapi.ContainerConfig)   // has the last word on what CRI gets
}

// Container is a container that was created.
type Container struct {
	ID     string
	Config *runtimeapi.ContainerConfig
	Pod    *Pod
}

// Create is CRI's CreateContainer.
func (p *Pod) Create(ctx context.Context, config ContainerConfig) (*Container, error) {
	if config.Name == "" {
		config.Name = "main"
	}
	if config.Image == "" {
		config.Image = ImageBusybox
	}
	if err := p.stand.Pull(ctx, config.Image); err != nil {
		return nil, err
	}
	container := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: config.Name},
		Image:    &runtimeapi.ImageSpec{Image: config.Image},
		Command:  config.Command,
		Args:     config.Args,
		LogPath:  config.Name + ".log",
		Labels: map[string]string{
			"io.kubernetes.container.name": config.Name, "io.kubernetes.pod.name": p.Config.GetMetadata().GetName(),
			"io.kubernetes.pod.namespace": p.Config.GetMetadata().GetNamespace(), "io.kubernetes.pod.uid": p.Config.GetMetadata().GetUid(),
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: config.Limits,
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Network: p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork(),
					Pid:     runtimeapi.NamespaceMode_CONTAINER,
				},
			},
		},
	}
	for _, v := range config.Env {
		name, value, _ := strings.Cut(v, "=")
		container.Envs = append(container.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(value)})
	}
	if config.Modify != nil {
		config.Modify(container)
	}
	reply, err := p.stand.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.ID, Config: container, SandboxConfig: p.Config,
	})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", config.Name, err)
	}
	return &Container{ID: reply.GetContainerId(), Config: container, Pod: p}, nil
}

// Run creates and starts a container.
func (p *Pod) Run(ctx context.Context, config ContainerConfig) (*Container, error) {
	c, err := p.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// Start is CRI's StartContainer.
func (c *Container) Start(ctx context.Context) error {
	if _, err := c.runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ID}); err != nil {
		return fmt.Errorf("start container %s: %w", c.Config.GetMetadata().GetName(), err)
	}
	return nil
}

// Stop is CRI's StopContainer, with the seconds between SIGTERM and SIGKILL.
func (c *Container) Stop(ctx context.Context, seconds int64) error {
	_, err := c.runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: seconds})
	return err
}

// Remove is CRI's RemoveContainer; a running container is killed.
func (c *Container) Remove(ctx context.Context) error {
	_, err := c.runtime().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
	return err
}

// Status is CRI's ContainerStatus.
func (c *Container) Status(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	reply, err := c.runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	return reply.GetStatus(), err
}

// Wait waits until the container has exited and all that it wrote is in its log, and returns its status; context's end is an error.
func (c *Container) Wait(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	for {
		status, err := c.Status(ctx)
		if err != nil {
			return nil, err
		}
		// CRI tells of an exit whether or not the log's writer has got there; it closes the file when it has.
		if status.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && !c.Pod.stand.hasOpen(c.logPath()) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("container %s is %s, and not over until its log is closed: %w", c.Config.GetMetadata().GetName(),
				status.GetState(), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ExecResult is what a command that ran in a container left.
type ExecResult struct {
	Stdout, Stderr string
	Status         int32
}

// Exec is CRI's ExecSync.
func (c *Container) Exec(ctx context.Context, command ...string) (ExecResult, error) {
	reply, err := c.runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: command})
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec %q: %w", command, err)
	}
	return ExecResult{Stdout: string(reply.GetStdout()), Stderr: string(reply.GetStderr()), Status: reply.GetExitCode()}, nil
}

// PID is the container's first process, as the stand's pid namespace numbers it.
func (c *Container) PID(ctx context.Context) (int, error) {
	client, err := c.Pod.stand.Containerd()
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	container, err := client.LoadContainer(ctx, c.ID)
	if err != nil {
		return 0, err
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, err
	}
	return int(task.Pid()), nil
}

func (c *Container) logPath() string {
	return filepath.Join(c.Pod.Config.GetLogDirectory(), c.Config.GetLogPath())
}

// Output is what the container wrote so far, stdout and stderr together, without CRI's time stamps.
func (c *Container) Output() (string, error) {
	content, err := os.ReadFile(c.logPath())
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(content)) {
		// TIME STREAM TAG TEXT, where the tag P is a line that goes on in the next.
		fields := strings.SplitN(line, " ", 4)
		if len(fields) < 4 {
			continue
		}
		if fields[2] == "P" {
			fields[3] = strings.TrimSuffix(fields[3], "\n")
		}
		out.WriteString(fields[3])
	}
	return out.String(), nil
}

func (c *Container) runtime() runtimeapi.RuntimeServiceClient { return c.Pod.stand.Runtime }
