// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/node/answer/form"
	"metsuke.dev/metsuke/node/pods"
)

func (s *Server) pod(p *pods.Pod) form.AgentPod {
	created := p.Created.UTC().Truncate(time.Second)
	return form.AgentPod{
		Meta: form.NewMeta(question.KindPod, form.Metadata{Name: p.Name, Namespace: p.Namespace, UID: p.UID, CreationTimestamp: &created}),
		Node: s.Node, Pod: p,
	}
}

// ofCluster tells whether what has this UID of a pod is the cluster's. Other containers somebody made at containerd by hand: the namespace
// that they say is containerd's, and of no team.
func ofCluster(podUID string) bool { return podUID != "" }

func (s *Server) list(ctx context.Context, w http.ResponseWriter, q *question.Question) {
	var filter pods.Filter
	if q.Namespace != "" {
		filter.Namespaces = []string{q.Namespace}
	}
	dirs, err := s.Directories()
	var found []pods.Pod
	if err == nil {
		found, err = (&pods.Node{StateDir: dirs.State, Root: s.Root}).List(ctx, filter)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it does not exist before the first pod
		fail(ctx, w, err)
		return
	}
	list := form.AgentPodList{Meta: form.NewMeta(question.KindPodList, form.Metadata{}), Items: []form.AgentPod{}}
	for i := range found {
		if q.Namespace == "" || ofCluster(found[i].UID) {
			list.Items = append(list.Items, s.pod(&found[i]))
		}
	}
	question.Write(w, http.StatusOK, list)
}

func (s *Server) inspect(ctx context.Context, w http.ResponseWriter, q *question.Question) {
	dirs, err := s.Directories()
	if err != nil {
		fail(ctx, w, err)
		return
	}
	p, err := (&pods.Node{StateDir: dirs.State, Root: s.Root}).Inspect(ctx, q.Namespace+"/"+q.Pod, pods.Options{Since: q.Since, Denials: q.Denials})
	var missing *pods.NotFoundError
	var ambiguous *pods.AmbiguousError
	switch {
	case errors.As(err, &ambiguous):
		question.Refuse(w, http.StatusConflict, fmt.Sprintf("the node has %d sandboxes of the pod, of which containerd has not cleaned up all", len(ambiguous.Pods)))
	case errors.As(err, &missing), errors.Is(err, fs.ErrNotExist), err == nil && !ofCluster(p.UID):
		question.Refuse(w, http.StatusNotFound, fmt.Sprintf("no pod %s/%s runs under Metsuke on node %s", q.Namespace, q.Pod, s.Node))
	case err != nil:
		fail(ctx, w, err)
	default:
		question.Write(w, http.StatusOK, s.pod(p))
	}
}

func (s *Server) examine(ctx context.Context, w http.ResponseWriter) {
	if !s.doctor.TryLock() {
		question.Refuse(w, http.StatusTooManyRequests, "the doctor is looking at the node already")
		return
	}
	defer s.doctor.Unlock()
	report, err := s.Doctor(ctx)
	if err != nil {
		fail(ctx, w, err)
		return
	}
	question.Write(w, http.StatusOK, form.DoctorReport{Meta: form.NewMeta(question.KindReport, form.Metadata{Name: s.Node}), Report: report})
}

// fail says that there was an error. What it was is the node's business, and a reader of a namespace has none with its files.
func fail(ctx context.Context, w http.ResponseWriter, err error) {
	logged(ctx, err)
	code := http.StatusInternalServerError
	if ctx.Err() != nil {
		code = http.StatusServiceUnavailable
	}
	question.Refuse(w, code, "the node's agent could not find out; its log says why")
}

func logged(ctx context.Context, err error) {
	log.G(ctx).WithError(err).Warn("a question could not be answered")
}
