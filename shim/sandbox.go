// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"

	"metsuke.dev/metsuke/internal/kata"
	"metsuke.dev/metsuke/shim/proxy"
)

// sandboxService is what containerd makes pods by where its runtime says sandboxer = "shim". Of Kata's, runtime-rs has it.
const sandboxService = "containerd.runtime.sandbox.v1.Sandbox"

// createSandbox refuses a pod with an annotation that could weaken its VM. There is no pause container then, whose
// specification would be looked at: runtime-rs reads the annotations of the pod as CRI has them, whatever containerd's
// pod_annotations let through (crates/runtimes/common/src/types/trans_from_shim.rs).
func (s *Service) createSandbox(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	annotations, err := sandboxAnnotations(call.Payload)
	if err != nil {
		return nil, fmt.Errorf("create sandbox: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	if err := kata.CheckAnnotations(annotations, s.Config.Delegate.Kata.AllowedAnnotations); err != nil {
		return nil, fmt.Errorf("create sandbox: %w: %w", errdefs.ErrFailedPrecondition, err)
	}
	return next(ctx, call.Payload)
}

// Fields of containerd's CreateSandboxRequest (api/runtime/sandbox/v1, sandbox.proto), of google.protobuf.Any, of CRI's
// PodSandboxConfig (k8s.io/cri-api, api.proto), which is the options, and of an entry of a map. The generated code of the first
// would bring all of grpc into the shim.
const (
	requestOptions     = 4
	requestAnnotations = 6
	anyValue           = 2
	configAnnotations  = 7
	entryKey           = 1
)

// sandboxAnnotations returns the annotations of a CreateSandboxRequest and of the pod's configuration in it, without values.
func sandboxAnnotations(request []byte) (map[string]string, error) {
	found := map[string]string{}
	note := func(key []byte) { found[string(key)] = "" }
	err := errors.Join(
		eachBytes(request, note, requestAnnotations, entryKey),
		eachBytes(request, note, requestOptions, anyValue, configAnnotations, entryKey),
	)
	return found, err
}

var errSandboxRequest = errors.New("the request is no CreateSandboxRequest with a PodSandboxConfig")

// eachBytes calls f with each value at a path of fields: messages, and strings at its end.
func eachBytes(message []byte, f func([]byte), field protowire.Number, path ...protowire.Number) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || number == field && kind != protowire.BytesType {
			return errSandboxRequest
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return errSandboxRequest
		}
		value := message[:size]
		message = message[size:]
		if number != field {
			continue
		}
		value, _ = protowire.ConsumeBytes(value)
		if len(path) == 0 {
			f(value)
		} else if err := eachBytes(value, f, path[0], path[1:]...); err != nil {
			return err
		}
	}
	return nil
}
