// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// What is news is what a round could follow from. In a cluster of 15,000 nodes some hundred objects of nodes change each second,
// nearly all of them in nothing but the time.

func anyNews[T any](_, _ *T) bool { return true }

// reportNews is whether a node says anything but that it is still there, or says that again.
func reportNews(before, after *v1alpha1.AgentNode) bool {
	now := time.Now()
	if isFresh(before, now) != isFresh(after, now) {
		return true
	}
	b, a := before.Status, after.Status
	b.Heartbeat, a.Heartbeat = metav1.Time{}, metav1.Time{}
	return !equality.Semantic.DeepEqual(b, a)
}

func labelNews(before, after *metav1.PartialObjectMetadata) bool {
	return before.UID != after.UID || !maps.Equal(before.Labels, after.Labels)
}
