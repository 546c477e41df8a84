// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/delegate"
)

// maxStdin bounds what is read of standard input, in bytes; it is the bound of containerd's shim library.
const maxStdin = 10 << 20

// invocation is what containerd asked for.
type invocation struct {
	action        string // "start", "delete", "serve" (ours) or empty
	version, info bool
	debug         bool
	namespace, id string
	address       string // containerd's gRPC socket
	publishBinary string // containerd's binary
	bundle        string // absolute path
	ttrpcAddress  string // containerd's ttrpc socket, for events
	podDir        string // of serve

	bootstrap *bootapi.BootstrapParams // nil: the protocol of before 2.3
	options   *anypb.Any               // runtime options; nil: none
}

// parseArgs reads the flags that containerd's shim library takes, and the environment. Which containerd sends which:
// start: all but -bundle; delete: all; -info: alone.
func parseArgs(args []string, getenv func(string) string) (*invocation, error) {
	inv := &invocation{ttrpcAddress: getenv("TTRPC_ADDRESS")}
	fs := flag.NewFlagSet("shim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&inv.debug, "debug", false, "")
	fs.BoolVar(&inv.version, "v", false, "")
	fs.BoolVar(&inv.version, "version", false, "")
	fs.BoolVar(&inv.info, "info", false, "")
	fs.StringVar(&inv.namespace, "namespace", "", "")
	fs.StringVar(&inv.id, "id", "", "")
	fs.StringVar(&inv.bundle, "bundle", "", "")
	fs.StringVar(&inv.address, "address", "", "")
	fs.StringVar(&inv.publishBinary, "publish-binary", "", "")
	fs.StringVar(&inv.podDir, "pod-dir", "", "")
	// Known to the library and of no use here: we always serve on a socket of our own choice.
	fs.String("socket", "", "")
	fs.String("debug-socket", "", "")
	if err := fs.Parse(args); err != nil {
		return nil, fmt.Errorf("command line: %w", err)
	}
	inv.action = fs.Arg(0)
	if inv.bundle == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		}
		inv.bundle = wd
	}
	var err error
	if inv.bundle, err = filepath.Abs(inv.bundle); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return inv, nil
}

// readStdin reads the standard input of start in either form.
func (inv *invocation) readStdin(r io.Reader) error {
	data, err := readAll(r)
	if err != nil {
		return err
	}
	inv.bootstrap, inv.options, err = parseStdin(data, inv.id, inv.namespace)
	if err != nil || inv.bootstrap == nil {
		return err
	}
	if a := inv.bootstrap.ContainerdTtrpcAddress; a != "" {
		inv.ttrpcAddress = a
	}
	if a := inv.bootstrap.ContainerdGrpcAddress; a != "" {
		inv.address = a
	}
	if b := inv.bootstrap.ContainerdBinary; b != "" {
		inv.publishBinary = b
	}
	if inv.bootstrap.LogLevel <= bootapi.LogLevel_LOG_LEVEL_DEBUG {
		inv.debug = true
	}
	return nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxStdin+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(data) > maxStdin {
		return nil, fmt.Errorf("standard input is longer than %d bytes", maxStdin)
	}
	return data, nil
}

var errStdin = errors.New("standard input is neither containerd's bootstrap parameters for this container nor runtime options")

// parseStdin tells the two forms of start apart. Options can be read as BootstrapParams (type_url is where the
// instance's id is), so those must name the container of the command line, as containerd's own library has it.
func parseStdin(data []byte, id, namespace string) (*bootapi.BootstrapParams, *anypb.Any, error) {
	if len(data) == 0 {
		return nil, nil, nil
	}
	params := &bootapi.BootstrapParams{}
	if proto.Unmarshal(data, params) == nil && params.InstanceID == id && params.Namespace == namespace && id != "" {
		any, err := optionsOf(params)
		return params, any, err
	}
	any, err := parseOptions(data)
	return nil, any, err
}

func parseOptions(data []byte) (*anypb.Any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	any := &anypb.Any{}
	if err := proto.Unmarshal(data, any); err != nil {
		return nil, fmt.Errorf("%w: %w", errStdin, err)
	}
	if any.TypeUrl == "" && len(any.Value) > 0 {
		return nil, errStdin
	}
	return any, nil
}

// optionsOf finds the runtime options among the extensions: ours, or else what somebody took for ours, so that it is
// refused by name and not ignored.
func optionsOf(params *bootapi.BootstrapParams) (*anypb.Any, error) {
	var found *anypb.Any
	for _, e := range params.Extensions {
		if !delegate.IsOptions(e.GetValue()) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("more than one extension holds runtime options: %q and %q", found.TypeUrl, e.Value.TypeUrl)
		}
		found = e.Value
	}
	return found, nil
}
