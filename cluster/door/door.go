// SPDX-License-Identifier: Apache-2.0

// Package door is where readers come in: the aggregated API reader.metsuke.dev. The API server authenticates who asks and forwards the
// request; the door asks it whether they may, and forwards the question to the agent of the node.
//
// Neither the caller's credentials nor the door's own reach a node: the door proves itself by its key, and pins the certificate that the
// node's AgentNode names. What a node answers is passed on as data, whatever it is.
package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/containerd/log"
	authorization "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/internal/places"
)

// How many questions are forwarded at a time, and how many of one user.
const (
	maxQuestions = 1024
	maxOfUser    = 64
)

// Config is what a door is made from. All of it must be set.
type Config struct {
	Host       string // the name of the Service that leads here: NAME.NAMESPACE.svc
	Dynamic    dynamic.Interface
	Reviews    authorizationclient.SubjectAccessReviewsGetter
	ConfigMaps coreclient.ConfigMapsGetter
}

// Door serves the API. Its methods are safe for concurrent use.
type Door struct {
	Config
	keys   keys
	places places.Places // by user
	again  time.Duration // between two looks whether somebody who follows still may
	answer time.Duration // that an agent has to begin to answer
}

// New returns a door. It does nothing before Serve.
func New(c Config) *Door {
	return &Door{Config: c, again: time.Minute, answer: 55 * time.Second, places: places.Places{Total: maxQuestions, Each: maxOfUser}}
}

// ServeHTTP answers one request of the API server's.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	keys := d.keys.now()
	user, err := keys.front.Authenticate(r, time.Now())
	if err != nil {
		question.Refuse(w, http.StatusUnauthorized, err.Error())
		return
	}
	if r.Method != http.MethodGet {
		question.Refuse(w, http.StatusMethodNotAllowed, "there is nothing here but to read")
		return
	}
	if r.URL.Path == question.Root {
		question.Write(w, http.StatusOK, resources)
		return
	}
	q, err := question.Parse(r.URL)
	switch {
	case errors.Is(err, question.ErrNoSuchThing):
		question.Refuse(w, http.StatusNotFound, err.Error())
	case err != nil:
		question.Refuse(w, http.StatusBadRequest, err.Error())
	default:
		d.ask(w, r, user, q, keys.own)
	}
}

// ask lets somebody ask who may.
func (d *Door) ask(w http.ResponseWriter, r *http.Request, user *User, q *question.Question, own *tls.Certificate) {
	leave, ok := d.places.Enter(user.Name)
	if !ok {
		w.Header().Set("Retry-After", "1")
		question.Refuse(w, http.StatusTooManyRequests, "too many questions at a time; wait, or end some that follow")
		return
	}
	defer leave()
	if err := d.review(r.Context(), user, q); err != nil {
		refuse(r.Context(), w, err)
		return
	}
	at, err := d.endpoint(r.Context(), q.Node)
	if err != nil {
		refuse(r.Context(), w, err)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if q.Follow {
		go d.watch(ctx, cancel, user, q)
	}
	log.G(ctx).WithFields(log.Fields{"user": user.Name, "question": q.URL().String()}).Info("a reader asks")
	d.forward(ctx, w, q, at, own)
}

// A refusal is an answer to a reader.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(ctx context.Context, w http.ResponseWriter, err error) {
	var known *refusal
	if errors.As(err, &known) {
		question.Refuse(w, known.code, known.text)
		return
	}
	log.G(ctx).WithError(err).Warn("a reader could not be served")
	question.Refuse(w, http.StatusServiceUnavailable, "the controller could not find out; its log says why")
}

// review asks the API server whether a user may ask a question. The error is a refusal if not.
func (d *Door) review(ctx context.Context, user *User, q *question.Question) error {
	access := q.Access()
	extra := map[string]authorization.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = v
	}
	review, err := d.Reviews.SubjectAccessReviews().Create(ctx, &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
		User: user.Name, UID: user.UID, Groups: user.Groups, Extra: extra,
		ResourceAttributes: &authorization.ResourceAttributes{
			Group: question.Group, Version: question.Version, Verb: access.Verb,
			Resource: access.Resource, Subresource: access.Subresource, Namespace: access.Namespace, Name: access.Name,
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask whether %q may: %w", user.Name, err)
	}
	if review.Status.Allowed && !review.Status.Denied {
		return nil
	}
	resource := access.Resource
	if access.Subresource != "" {
		resource += "/" + access.Subresource
	}
	where := "in the cluster"
	if access.Namespace != "" {
		where = "in namespace " + access.Namespace
	}
	return &refusal{http.StatusForbidden, fmt.Sprintf("user %q may not %s %s in API group %s %s", user.Name, access.Verb, resource, question.Group, where)}
}

// watch ends the answer to somebody who may not ask any more. While the API server cannot say, it goes on.
func (d *Door) watch(ctx context.Context, end context.CancelCauseFunc, user *User, q *question.Question) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(d.again):
		}
		var no *refusal
		if err := d.review(ctx, user, q); errors.As(err, &no) {
			log.G(ctx).WithField("user", user.Name).Info("a reader may not follow any more")
			end(no)
			return
		}
	}
}

// endpoint returns where the agent of a node answers.
func (d *Door) endpoint(ctx context.Context, node string) (*v1alpha1.Endpoint, error) {
	object, err := d.Dynamic.Resource(v1alpha1.AgentNodes).Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &refusal{http.StatusNotFound, fmt.Sprintf("no agent of Metsuke's reports for node %s", node)}
	}
	if err != nil {
		return nil, err
	}
	n, err := v1alpha1.Decode[v1alpha1.AgentNode](object)
	if err != nil {
		return nil, err
	}
	if n.Status.Endpoint == nil {
		return nil, &refusal{http.StatusServiceUnavailable, fmt.Sprintf("the agent of node %s does not answer readers", node)}
	}
	if _, err := netip.ParseAddrPort(n.Status.Endpoint.Address); err != nil { // the node writes it; no name is looked up for it
		return nil, &refusal{http.StatusServiceUnavailable, fmt.Sprintf("the agent of node %s names no address", node)}
	}
	return n.Status.Endpoint, nil
}

// resources is what the API server tells about the API.
var resources = metav1.APIResourceList{
	TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
	GroupVersion: question.Group + "/" + question.Version,
	APIResources: []metav1.APIResource{
		{Name: question.AgentPods, SingularName: "agentpod", Namespaced: true, Kind: question.KindPod, Verbs: metav1.Verbs{"get", "list"}},
		{Name: question.AgentPods + "/log", Namespaced: true, Kind: question.KindPod, Verbs: metav1.Verbs{"get"}},
		{Name: question.DoctorReports, SingularName: "doctorreport", Kind: question.KindReport, Verbs: metav1.Verbs{"get"}},
	},
}
