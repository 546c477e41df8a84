// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

// answer is what start prints: the delegate's answer with our address in it, in the form that containerd expects.
// version is the one to advertise.
func answer(result *bootapi.BootstrapResult, address string, version int32, bootstrap bool) ([]byte, error) {
	if bootstrap {
		r := proto.CloneOf(result) // with what the delegate advertises beside, known to us or not
		r.Address, r.Version, r.Protocol = address, version, "ttrpc"
		out, err := proto.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode the answer: %w", err)
		}
		return out, nil
	}
	if version <= 2 {
		return []byte(address), nil // what every containerd with shims v2 understands
	}
	out, err := json.Marshal(struct {
		Version  int32  `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}{version, address, "ttrpc"})
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return out, nil
}

// advertised is the version of the Task API that start announces: the delegate's, but 2 to containerd 1.7, which knows
// no other. (MAX_SHIM_VERSION does not tell: every containerd sets it to 2.) The requests of a containerd that was
// told 2 reach a delegate of 3 under the name of 3: the messages are the same.
func advertised(inv *invocation, delegate int32) int32 {
	if inv.bootstrap != nil || delegate <= 2 || knowsVersion3(inv.publishBinary) {
		return delegate
	}
	return 2
}

// knowsVersion3 says that a containerd binary is built from containerd 2. It reads the module information that Go
// binaries carry, which is quicker and safer than running it.
func knowsVersion3(binary string) bool {
	const module = "github.com/containerd/containerd/v2"
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return false
	}
	if info.Main.Path == module || strings.HasPrefix(info.Path, module+"/") {
		return true
	}
	for _, dep := range info.Deps {
		if dep.Path == module {
			return true // k3s and the like carry containerd in a binary of their own
		}
	}
	return false
}

// writeAddress puts our address where containerd 1.7 looks for it after a restart, in the place of what a delegate may
// have written there: that would lead containerd past us.
func writeAddress(bundle, address string, bootstrap bool) error {
	path := filepath.Join(bundle, "address")
	if _, err := os.Lstat(path); err != nil && bootstrap {
		return nil // containerd 2 keeps bootstrap.json itself
	}
	return writeFile(path, []byte(address), 0o644)
}
