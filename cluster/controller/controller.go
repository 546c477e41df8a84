// SPDX-License-Identifier: Apache-2.0

// Package controller decides in a cluster which documents are in force, says so, and labels nodes that are ready.
//
// It looks at everything each time: one goroutine takes a snapshot of what the informers hold, plans all writes that follow
// from it, and writes. Nothing is kept between two rounds that the API server does not have, but for the digests of recent sets.
package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"metsuke.dev/metsuke/cluster/admission"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

const (
	// betweenRounds is the least time between two rounds: a burst of events is one of them.
	betweenRounds = 500 * time.Millisecond
	// turn is how often the loop goes round when nothing happens.
	turn = 30 * time.Second
	// afterFailure is when a round whose writes failed is made again, if nothing happens until then.
	afterFailure = 5 * time.Second
)

var nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// Controller is the controller of one cluster. Only one may run at a time.
type Controller struct {
	client   dynamic.Interface
	metadata metadata.Interface

	documents  []cache.SharedIndexInformer // of AgentProfiles and ProfileBindings
	accepted   cache.SharedIndexInformer
	agentNodes cache.SharedIndexInformer
	nodes      cache.SharedIndexInformer

	dirty     chan struct{}
	decisions decisions
	sets      sets
	pace      pace
	params    params
	observed  func(Round)
	beat      func()
}

// Options are what the controller has to be told.
type Options struct {
	Namespace string          // where its ConfigMap is
	Nodes     admission.Nodes // what the configuration of all nodes says
	Observed  func(Round)     // is told of each round, and must not block; nil: nobody is
	// Beat is called each time that the controller goes round, at least every half minute, and after each write, unless it is stuck. nil: it
	// is not. It must not block.
	Beat func()
}

// New returns a controller that works through these clients.
func New(client dynamic.Interface, meta metadata.Interface, options Options) (*Controller, error) {
	c := &Controller{client: client, metadata: meta, dirty: make(chan struct{}, 1), observed: options.Observed, beat: options.Beat}
	if c.beat == nil {
		c.beat = func() {}
	}
	c.params = params{nodes: options.Nodes, client: client.Resource(configMaps).Namespace(options.Namespace)}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := func(r schema.GroupVersionResource) cache.SharedIndexInformer {
		return factory.ForResource(r).Informer()
	}
	c.documents = []cache.SharedIndexInformer{informer(v1alpha1.AgentProfiles), informer(v1alpha1.ProfileBindings)}
	c.accepted, c.agentNodes = informer(v1alpha1.AcceptedDocuments), informer(v1alpha1.AgentNodes)
	c.nodes = metadatainformer.NewSharedInformerFactory(meta, 0).ForResource(nodes).Informer()
	return c, errors.Join(
		watch(c, c.documents[0], v1alpha1.Decoded[v1alpha1.Document], anyNews[v1alpha1.Document]),
		watch(c, c.documents[1], v1alpha1.Decoded[v1alpha1.Document], anyNews[v1alpha1.Document]),
		watch(c, c.accepted, v1alpha1.Decoded[v1alpha1.AcceptedDocument], anyNews[v1alpha1.AcceptedDocument]),
		watch(c, c.agentNodes, v1alpha1.Decoded[v1alpha1.AgentNode], reportNews),
		watch(c, c.nodes, labelsOnly, labelNews),
	)
}

// watch makes each change that is news a reason for a round. Objects are decoded when they arrive, not in each round.
func watch[T any](c *Controller, informer cache.SharedIndexInformer, transform cache.TransformFunc, news func(before, after *T) bool) error {
	if err := informer.SetTransform(transform); err != nil {
		return err
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.poke() },
		UpdateFunc: func(before, after any) {
			b, ok := before.(*T)
			a, too := after.(*T)
			if !ok || !too || news(b, a) {
				c.poke()
			}
		},
		DeleteFunc: func(any) { c.poke() },
	})
	return err
}

func (c *Controller) poke() {
	select {
	case c.dirty <- struct{}{}:
	default: // a round is due already
	}
}

// labelsOnly keeps of a node what is looked at.
func labelsOnly(object any) (any, error) {
	if node, ok := object.(*metav1.PartialObjectMetadata); ok {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels,
		}}, nil
	}
	return object, nil
}

// Run works until ctx ends, and returns when everything that it started has ended.
func (c *Controller) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	informers := append([]cache.SharedIndexInformer{c.accepted, c.agentNodes, c.nodes}, c.documents...)
	synced := make([]cache.InformerSynced, len(informers))
	for i, informer := range informers {
		synced[i] = informer.HasSynced
		go func() {
			informer.Run(ctx.Done())
			done <- struct{}{}
		}()
	}
	defer func() {
		stop()
		for range informers {
			<-done
		}
	}()
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("list the cluster's objects: %w", context.Cause(ctx))
	}
	log.G(ctx).Info("the controller has listed all objects")
	c.rounds(ctx)
	return nil
}

func (c *Controller) rounds(ctx context.Context) {
	timer, turns := time.NewTimer(0), time.NewTicker(turn) // the first round needs no event
	defer timer.Stop()
	defer turns.Stop()
	for {
		c.beat()
		select {
		case <-ctx.Done():
			return
		case <-turns.C:
			continue
		case <-c.dirty:
		case <-timer.C:
		}
		next := c.round(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(betweenRounds):
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

// round does once what is to be done, and returns when to look again if nothing happens; zero: never.
func (c *Controller) round(ctx context.Context, now time.Time) time.Time {
	p := &plan{}
	s := c.snapshot(now)
	reports := fresh(s)
	err := c.decide(s, reports, p)
	label(s, reports, p)
	if err = errors.Join(err, c.apply(ctx, p, now)); err != nil && ctx.Err() == nil {
		log.G(ctx).WithError(err).Warn("not everything could be written; trying again")
		p.look(now.Add(afterFailure))
	}
	if c.observed != nil {
		c.observed(round(s, reports, p, time.Since(now)))
	}
	return p.next
}

func (c *Controller) snapshot(now time.Time) *snapshot {
	s := &snapshot{now: now}
	for _, informer := range c.documents {
		s.documents = append(s.documents, all[v1alpha1.Document](informer)...)
	}
	s.accepted = all[v1alpha1.AcceptedDocument](c.accepted)
	s.agentNodes = all[v1alpha1.AgentNode](c.agentNodes)
	s.nodes = all[metav1.PartialObjectMetadata](c.nodes)
	return s
}

func all[T any](informer cache.SharedIndexInformer) []*T {
	list := informer.GetStore().List()
	out := make([]*T, 0, len(list))
	for _, object := range list {
		if v, ok := object.(*T); ok {
			out = append(out, v)
		}
	}
	return out
}
