// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// maxOutput bounds what is kept of a delegate's output, in bytes.
	maxOutput = 1 << 20
	// pipeDelay is how long the output of a process that has ended is waited for: a delegate that leaves its
	// standard output to its daemon would keep us for ever.
	pipeDelay = 500 * time.Millisecond
)

// Params are what containerd gave us for one container, to be given on to the delegate.
type Params struct {
	Namespace     string
	ID            string
	Bundle        string // absolute path; the delegate's working directory
	Address       string // containerd's -address; the delegate gets Address(Address)
	PublishBinary string
	Debug         bool
	// TTRPCAddress is where the delegate sends its events. Empty: the environment's, as at delete.
	TTRPCAddress string
	// Bootstrap is what containerd 2.3 and later sent on standard input; nil when it spoke the older protocol.
	Bootstrap *bootapi.BootstrapParams
}

// Instance is a delegate that runs.
type Instance struct {
	Binary  string  `json:"binary"`  // absolute path
	Address string  `json:"address"` // of its Task API: unix:///path
	Version int32   `json:"version"` // of the Task API: 2 or 3
	Process Process `json:"process"`
	// Sockets are the paths that the delegate listens on; with debug logging runc's has a second one.
	Sockets []string `json:"sockets,omitempty"`
}

// Started is the outcome of Start.
type Started struct {
	Instance
	// Result is what the delegate answered; Address and Version are the same as Instance's.
	Result *bootapi.BootstrapResult
	// New is true when this start made the delegate; false when the delegate's grouping led to one that ran already,
	// of which Process is then not known.
	New bool
}

// Address returns the -address that a delegate gets in the place of containerd's.
func Address(containerd string) string { return containerd + ".metsuke" }

// errProtocol is what containerd's own shim library of 2.4 and later says to the older protocol, before it does
// anything.
const errProtocol = "started through the deprecated API"

// Start runs the delegate's start action. It speaks the protocol that containerd spoke to us; a delegate that knows
// only the newer one says so and is started again with it. In the other direction no failure is to be expected: shims
// of before 2.3 do not look at what they get on standard input, except that runc's reads from it the cgroup to join,
// so options that name one are always tried in the older form first, which loses nothing with either.
//
// Start makes this process a child subreaper; it is meant for a process that ends soon. A delegate that was started
// but cannot be used is killed.
func Start(ctx context.Context, cfg Config, p Params) (*Started, error) {
	binary, err := cfg.Find()
	if err != nil {
		return nil, err
	}
	opts, err := cfg.Options()
	if err != nil {
		return nil, err
	}
	older, newer, err := inputs(p, opts)
	if err != nil {
		return nil, err
	}
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	known := map[int]bool{}
	for _, pid := range children() {
		known[pid] = true
	}
	var out []byte
	if p.Bootstrap != nil && cfg.Runc.GetShimCgroup() == "" {
		out, err = run(ctx, binary, p, newer, "start")
	} else {
		out, err = run(ctx, binary, p, older, "start")
		if err != nil && strings.Contains(err.Error(), errProtocol) {
			out, err = run(ctx, binary, p, newer, "start")
		}
	}
	var s *Started
	if err == nil {
		s, err = started(binary, out, known)
	}
	if err != nil {
		// Whatever it left is ours to end: nobody else knows of it.
		if left, ok := adopted(known, ""); ok {
			err = errors.Join(err, left.Kill(ctx))
		}
		return nil, fmt.Errorf("start delegate: %w", err)
	}
	return s, nil
}

func started(binary string, out []byte, known map[int]bool) (*Started, error) {
	result, err := ParseResult(out)
	if err != nil {
		return nil, err
	}
	path, err := SocketPath(result.Address)
	if err != nil {
		return nil, err
	}
	s := &Started{Instance: Instance{Binary: binary, Address: result.Address, Version: result.Version}, Result: result}
	if s.Process, s.New = adopted(known, path); s.New {
		s.Sockets = listening(s.Process.PID)
	}
	return s, nil
}

// inputs returns the standard input of start in the older form and in the newer.
func inputs(p Params, opts *anypb.Any) (older, newer []byte, err error) {
	if opts != nil {
		if older, err = proto.Marshal(opts); err != nil {
			return nil, nil, fmt.Errorf("encode the delegate's options: %w", err)
		}
	}
	params := &bootapi.BootstrapParams{ContainerdBinary: p.PublishBinary}
	if p.Bootstrap != nil {
		params = proto.CloneOf(p.Bootstrap)
	} else if p.Debug {
		params.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	params.InstanceID = p.ID
	params.Namespace = p.Namespace
	params.ContainerdGrpcAddress = Address(p.Address)
	params.ContainerdTtrpcAddress = p.TTRPCAddress
	// Our own options are not the delegate's; other extensions are for whoever knows them.
	var kept []*bootapi.Extension
	for _, e := range params.Extensions {
		if !IsOptions(e.GetValue()) {
			kept = append(kept, e)
		}
	}
	params.Extensions = kept
	if opts != nil {
		params.Extensions = append(params.Extensions, &bootapi.Extension{Value: opts})
	}
	if newer, err = proto.Marshal(params); err != nil {
		return nil, nil, fmt.Errorf("encode the delegate's start: %w", err)
	}
	return older, newer, nil
}

// IsOptions says that a message of containerd's holds runtime options. Those are for us and never for the delegate.
func IsOptions(any *anypb.Any) bool {
	return strings.HasSuffix(any.GetTypeUrl(), "runtimeoptions.v1.Options") ||
		strings.HasSuffix(any.GetTypeUrl(), "containerd.runc.v1.Options")
}

// run runs the delegate with the flags and the environment that containerd gives a shim, in the bundle, and returns
// its standard output. The error holds what it printed.
func run(ctx context.Context, binary string, p Params, stdin []byte, action string) ([]byte, error) {
	args := []string{
		"-namespace", p.Namespace, "-address", Address(p.Address), "-publish-binary", p.PublishBinary, "-id", p.ID,
	}
	if action == "delete" {
		args = append(args, "-bundle", p.Bundle)
	}
	if p.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.CommandContext(ctx, binary, append(args, action)...)
	cmd.Dir = p.Bundle
	// GRPC_ADDRESS says the same as -address: the shim library of 2.3 names the socket by it.
	cmd.Env = append(environ(), "NAMESPACE="+p.Namespace, "GRPC_ADDRESS="+Address(p.Address))
	if p.TTRPCAddress != "" {
		cmd.Env = append(cmd.Env, "TTRPC_ADDRESS="+p.TTRPCAddress)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeDelay
	return output(cmd, stdin)
}

// environ is our own environment but for KATA_CONF_FILE: it names a configuration file to Kata's shims, and runtime-rs takes
// it before the one that we pass (src/runtime-rs/crates/runtimes/src/manager.rs). Which one counts is for our file to say.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KATA_CONF_FILE=") })
}

func output(cmd *exec.Cmd, stdin []byte) ([]byte, error) {
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well, and its daemon holds the pipe
	}
	if err != nil {
		said := strings.TrimSpace(stdout.String() + stderr.String())
		return nil, fmt.Errorf("%s: %.2000s: %w", cmd.Path, said, err)
	}
	return stdout.Bytes(), nil
}

// bounded is a buffer that drops what comes after maxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
