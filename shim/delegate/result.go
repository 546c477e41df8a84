// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

// maxVersion is the newest Task API version that we know; its frames pass through us as they are, but what it would
// ask of interception is unknown.
const maxVersion = 3

// maxSocketPath is the longest path of a unix socket, in bytes: sockaddr_un holds 108 with the final zero.
const maxSocketPath = 107

// ParseResult reads what a shim prints on start: BootstrapResult (2.3 and later), the JSON of 1.7 to 2.2, or a plain
// address. It refuses what we cannot stand before: gRPC, vsock, abstract sockets and Task versions that we do not know.
func ParseResult(out []byte) (*bootapi.BootstrapResult, error) {
	result, err := decodeResult(out)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(result.Protocol, "ttrpc") {
		return nil, fmt.Errorf("delegate serves %q, and only ttrpc can be supervised: choose a delegate that serves ttrpc", result.Protocol)
	}
	if result.Version < 2 || result.Version > maxVersion {
		return nil, fmt.Errorf("delegate speaks version %d of the Task API, and only 2 to %d are known", result.Version, maxVersion)
	}
	path, err := SocketPath(result.Address)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "\x00\n") {
		return nil, fmt.Errorf("delegate's address %q is not a path", result.Address)
	}
	return result, nil
}

func decodeResult(out []byte) (*bootapi.BootstrapResult, error) {
	// As containerd 2.3 and later: a plain address and JSON are no valid protobuf (wire types 7 and 3).
	result := &bootapi.BootstrapResult{}
	if len(out) > 0 && proto.Unmarshal(out, result) == nil && result.Address != "" {
		return result, nil
	}
	text := bytes.TrimSpace(out)
	if len(text) == 0 {
		return nil, errors.New("delegate printed no address")
	}
	if text[0] == '{' {
		var j struct {
			Version  int32  `json:"version"`
			Address  string `json:"address"`
			Protocol string `json:"protocol"`
		}
		if err := json.Unmarshal(text, &j); err != nil {
			return nil, fmt.Errorf("delegate's answer %.200q: %w", text, err)
		}
		return &bootapi.BootstrapResult{Version: j.Version, Address: j.Address, Protocol: j.Protocol}, nil
	}
	return &bootapi.BootstrapResult{Version: 2, Address: string(text), Protocol: "ttrpc"}, nil
}

// SocketPath returns the path in an address of the form "unix:///path".
func SocketPath(address string) (string, error) {
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("shim address %.200q: want unix:///path", address)
	}
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("shim address %.200q: the path is longer than %d bytes", address, maxSocketPath)
	}
	return path, nil
}
