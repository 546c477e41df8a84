// SPDX-License-Identifier: Apache-2.0

// Package delegate finds, starts, watches and deletes the shim that does the work: containerd's side of the shim v2
// start protocols (core/runtime/v2 of containerd 2, runtime/v2 of 1.7), in both forms.
//
// A delegate is given another -address than containerd's. Shims use it to name their socket; with a name of its own a
// delegate of ours never groups with a shim that containerd started itself, nor the other way round, so no container
// comes to a pod past us.
package delegate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// RuncType is the runtime type whose options are Config.Runc.
const RuncType = "io.containerd.runc.v2"

// Config says which shim the delegate is, and its options.
type Config struct {
	// Binary is the shim's absolute path, or a plain name to be looked for as RuntimeType's is. Empty: by RuntimeType.
	Binary string
	// RuntimeType is a containerd runtime type, such as "io.containerd.runc.v2" or "io.containerd.kata.v2".
	RuntimeType string
	// Runc holds the options of io.containerd.runc.v2; nil: the shim's defaults.
	Runc *options.Options
	// ConfigPath is the configuration file of any other type; empty: the shim's default.
	ConfigPath string
}

// Find returns the absolute path of the shim's binary. A name is looked for as containerd does: in PATH, then beside
// our own executable.
func (c Config) Find() (string, error) {
	name := c.Binary
	if name == "" {
		parts := strings.Split(c.RuntimeType, ".")
		if len(parts) < 2 || parts[0] == "" || strings.Contains(c.RuntimeType, "/") {
			return "", fmt.Errorf("delegate runtime type %q: want a form like %q, or set the binary", c.RuntimeType, RuncType)
		}
		name = fmt.Sprintf("containerd-shim-%s-%s", parts[len(parts)-2], parts[len(parts)-1])
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find our own executable: %w", err)
	}
	path, err := lookUp(name, filepath.Dir(self))
	if err != nil {
		return "", err
	}
	found, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("delegate binary: %w", err)
	}
	if own, err := os.Stat(self); err == nil && os.SameFile(own, found) {
		return "", fmt.Errorf("delegate binary %s is this shim itself; name another delegate", path)
	}
	return path, nil
}

func lookUp(name, beside string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("delegate binary %q: want an absolute path or a plain name", name)
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	path = filepath.Join(beside, name)
	if _, serr := os.Stat(path); serr != nil {
		return "", fmt.Errorf("delegate binary %q is neither in PATH nor in %s: install it or set the binary's path: %w",
			name, beside, os.ErrNotExist)
	}
	return path, nil
}

// Options returns what the delegate gets as runtime options at its start, in Create and with -info; nil for none.
func (c Config) Options() (*anypb.Any, error) {
	var msg proto.Message
	switch {
	case c.RuntimeType == RuncType && c.ConfigPath != "":
		return nil, fmt.Errorf("delegate %s takes no configuration file: %s", c.RuntimeType, c.ConfigPath)
	case c.RuntimeType != RuncType && c.Runc != nil:
		return nil, fmt.Errorf("delegate %s takes a configuration file, not options of runc", c.RuntimeType)
	case c.Runc != nil:
		msg = c.Runc
	case c.ConfigPath != "":
		msg = &runtimeoptions.Options{ConfigPath: c.ConfigPath}
	default:
		return nil, nil
	}
	value, err := proto.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode the delegate's options: %w", err)
	}
	// The bare name is what containerd writes; shims look it up with and without a prefix.
	return &anypb.Any{TypeUrl: string(msg.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

// ErrOptions says that the runtime options that containerd passed to us are not ours.
var ErrOptions = errors.New("runtime options")

// UnwrapOptions returns the path of our own configuration file from the options that containerd passed: empty for no
// options or none that name a file. CRI hands an options table on as runtimeoptions.v1.Options; nothing else is ours.
func UnwrapOptions(any *anypb.Any) (string, error) {
	if any == nil || (any.TypeUrl == "" && len(any.Value) == 0) {
		return "", nil
	}
	name := any.TypeUrl[strings.LastIndex(any.TypeUrl, "/")+1:]
	switch name {
	case "runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options":
	default:
		return "", fmt.Errorf("%w of type %q: want runtimeoptions.v1.Options with ConfigPath (in containerd's "+
			"configuration: options = {ConfigPath = \"/etc/metsuke/config.toml\"})", ErrOptions, any.TypeUrl)
	}
	var opts runtimeoptions.Options
	if err := proto.Unmarshal(any.Value, &opts); err != nil {
		return "", fmt.Errorf("%w: %w", ErrOptions, err)
	}
	switch {
	case opts.ConfigPath == "" && len(opts.ConfigBody) > 0:
		return "", fmt.Errorf("%w have no ConfigPath but a body: write it to a file and name that as ConfigPath", ErrOptions)
	case opts.ConfigPath != "" && !filepath.IsAbs(opts.ConfigPath):
		return "", fmt.Errorf("%w: ConfigPath %q is not absolute", ErrOptions, opts.ConfigPath)
	}
	return opts.ConfigPath, nil
}
