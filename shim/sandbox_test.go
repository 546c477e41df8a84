// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/shim/proxy"
)

// field is a field of a message: bytes.
func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

// entry is an entry of a map of strings.
func entry(key, value string) []byte {
	return append(field(1, []byte(key)), field(2, []byte(value))...)
}

// createRequest is a CreateSandboxRequest with a PodSandboxConfig in its options.
func createRequest(config ...[]byte) []byte {
	options := append(field(1, []byte("runtime.v1.PodSandboxConfig")), field(2, bytes.Join(config, nil))...)
	return bytes.Join([][]byte{field(1, []byte("pod")), field(2, []byte("/bundle")), field(4, options), field(5, []byte("/netns"))}, nil)
}

// A pod that containerd makes without a pause container has its annotations looked at all the same.
func TestCreateSandbox(t *testing.T) {
	const params, size = "io.katacontainers.config.hypervisor.kernel_params", "io.katacontainers.config.hypervisor.default_memory"
	const allowed = "io.katacontainers.config.agent.kernel_modules"
	metadata, number := field(1, []byte("metadata")), protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.VarintType), 7)
	label := field(6, entry(params, "a label"))
	for name, test := range map[string]struct {
		request []byte
		want    string // in the error; empty: it passes
		class   error
	}{
		"nothing":               {nil, "", nil},
		"no annotations":        {createRequest(metadata, number, label), "", nil},
		"harmless":              {createRequest(field(7, entry(size, "512")), field(7, entry("a/b", "c"))), "", nil},
		"allowed":               {createRequest(field(7, entry(allowed, "x"))), "", nil},
		"refused":               {createRequest(metadata, label, field(7, entry("a/b", "c")), field(7, entry(params, "x")), number), params, errdefs.ErrFailedPrecondition},
		"another pod's":         {createRequest(field(7, entry("io.kubernetes.cri-o.SandboxID", "x"))), "cri-o", errdefs.ErrFailedPrecondition},
		"of the request":        {append(createRequest(metadata), field(6, entry(params, "x"))...), params, errdefs.ErrFailedPrecondition},
		"options twice":         {append(createRequest(metadata), createRequest(field(7, entry(params, "x")))...), params, errdefs.ErrFailedPrecondition},
		"key twice, the last":   {createRequest(field(7, append(entry("a/b", "c"), field(1, []byte(params))...))), params, errdefs.ErrFailedPrecondition},
		"annotations, a number": {createRequest(protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 7)), "no CreateSandboxRequest", errdefs.ErrInvalidArgument},
		"cut off":               {createRequest(field(7, entry(params, "x"))[:20]), "no CreateSandboxRequest", errdefs.ErrInvalidArgument},
		"garbage":               {[]byte{0xff}, "no CreateSandboxRequest", errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := kataService(t, func(c *config.Config) { c.Delegate.Kata.AllowedAnnotations = []string{allowed} })
			call := &proxy.Call{Service: sandboxService, Method: "CreateSandbox", Payload: test.request}
			passed := false
			_, err := s.Intercept(call)(t.Context(), call, func(_ context.Context, payload []byte) ([]byte, error) {
				passed = bytes.Equal(payload, test.request)
				return nil, nil
			})
			if passed != (test.want == "") || passed != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.class) {
				t.Errorf("passed as it came: %v, %v; want an error with %q", passed, err, test.want)
			}
		})
	}
	s := kataService(t, nil)
	for _, method := range []string{"StartSandbox", "Platform", "StopSandbox", "WaitSandbox", "SandboxStatus", "PingSandbox", "ShutdownSandbox", "UpdateSandbox", "SandboxMetrics"} {
		if s.Intercept(&proxy.Call{Service: sandboxService, Method: method}) != nil {
			t.Errorf("%s does not pass as it is", method)
		}
	}
	if (&Service{}).Intercept(&proxy.Call{Service: sandboxService, Method: "CreateSandbox"}) != nil {
		t.Error("CreateSandbox does not pass to a delegate without a VM")
	}
}

// FuzzSandboxAnnotations: whatever the bytes, an annotation that is found is in them.
func FuzzSandboxAnnotations(f *testing.F) {
	f.Add(createRequest(field(7, entry("a/b", "c"))))
	f.Add(field(6, entry("a/b", "c")))
	f.Fuzz(func(t *testing.T, request []byte) {
		found, err := sandboxAnnotations(request)
		for key := range found {
			if err == nil && !bytes.Contains(request, []byte(key)) {
				t.Errorf("%q is not in the request", key)
			}
		}
	})
}
