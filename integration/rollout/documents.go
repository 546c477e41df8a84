// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// edited is the profile that is changed.
const edited = "profile-000"

// writeDocuments makes profiles as a platform team writes them, and a binding of a namespace for each.
func (s *simulation) writeDocuments(ctx context.Context) error {
	for i := range (s.Documents + 1) / 2 {
		name := fmt.Sprintf("profile-%03d", i)
		_, err := s.client.Resource(v1alpha1.AgentProfiles).Create(ctx, object(profile.KindProfile, name, map[string]any{
			"extends": []any{profile.Baseline},
			"seccomp": map[string]any{"deny": []any{
				map[string]any{"syscalls": []any{"ptrace", "process_vm_readv", "process_vm_writev", "bpf", "perf_event_open"}, "errno": "EPERM"},
				map[string]any{"syscalls": []any{"mount", "umount2", "pivot_root", "unshare", "setns"}, "errno": "EPERM"},
			}},
			"limits": map[string]any{"cpu": "2", "memory": "2Gi", "pids": int64(256)},
		}), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if 2*i+1 == s.Documents {
			break
		}
		_, err = s.client.Resource(v1alpha1.ProfileBindings).Create(ctx, object(profile.KindBinding, fmt.Sprintf("team-%03d", i), map[string]any{
			"namespaces": []any{fmt.Sprintf("team-%03d", i)}, "default": name, "allowed": []any{name, profile.Baseline},
		}), metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return s.plane.until(ctx, "the documents to be accepted", func() error {
		list, err := s.client.Resource(v1alpha1.AcceptedDocuments).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != s.Documents {
			err = fmt.Errorf("%d of %d are", len(list.Items), s.Documents)
		}
		return err
	})
}

func object(kind, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetKind(kind)
	u.SetName(name)
	return u
}

// edit changes the profile, and returns its new generation.
func (s *simulation) edit(ctx context.Context) (int64, error) {
	s.edits++
	patch := fmt.Appendf(nil, `{"spec":{"limits":{"pids":%d}}}`, 256+s.edits)
	changed, err := s.client.Resource(v1alpha1.AgentProfiles).Patch(ctx, edited, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return 0, err
	}
	return changed.GetGeneration(), nil
}
