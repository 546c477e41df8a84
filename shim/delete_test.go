// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/shim/proxy"
)

// containerd deletes what it gave up creating, while the Create may still be under way. The shim must live through it,
// and the delegate must not be told to delete what is not made yet.
func TestDeleteWhileCreating(t *testing.T) {
	s := &Service{containers: map[string]*container{}}
	if err := s.reserve("c"); err != nil {
		t.Fatal(err)
	}
	payload, err := proto.Marshal(&taskapi.DeleteRequest{ID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.delete(context.Background(), &proxy.Call{Payload: payload}, func(context.Context, []byte) ([]byte, error) {
		t.Error("passed on")
		return proto.Marshal(&taskapi.DeleteResponse{ExitStatus: 137})
	})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("error %v, want not found", err)
	}
	if s.containers["c"] != creating {
		t.Error("the reservation is gone")
	}
}
