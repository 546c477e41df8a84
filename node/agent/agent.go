// SPDX-License-Identifier: Apache-2.0

// Package agent is what runs on each node of a cluster: it puts the cluster's documents in force on the node, and reports.
//
// Nothing that runs on the node needs it. Shims read the profile directory; without the API server, or without the agent, the last set
// that was good stays in it.
package agent

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/node/mirror"
	"metsuke.dev/metsuke/profile"
)

// Heartbeat is how often an agent reports when nothing changes.
const Heartbeat = 5 * time.Minute

// recovery is after what time handlers are looked at again when one is found not ready: on a node that comes up, much is so for seconds only.
// It doubles with each such look, up to Heartbeat, so that many broken nodes are no load.
const recovery = 15 * time.Second

// turn is how often the loop goes round when nothing happens.
const turn = 30 * time.Second

// Config is what an agent is made from. All of it must be set, but for Reported, Beat and Endpoint.
type Config struct {
	Client  dynamic.Interface
	Node    string // the node's name in the cluster
	Version string // of Metsuke
	Mirror  *mirror.Mirror
	// Settle is how long documents have to be quiet before they come into force: a change of several is applied as one.
	Settle time.Duration
	// Spread is within what time a change is reported, at random, so that all nodes of a cluster do not report at once.
	Spread time.Duration
	// Examine returns what is to be said of the node's handlers. It is called before each heartbeat, sooner after one was not ready, by one
	// goroutine, and may block until ctx ends.
	Examine func(ctx context.Context) []v1alpha1.HandlerStatus
	// Endpoint is where the node's questions are answered; nil: nowhere.
	Endpoint *v1alpha1.Endpoint
	// Reported is told of each report that was tried, and what came of it; nil: nobody is. It must not block.
	Reported func(Report)
	// Beat is called each time that the agent goes round, at least every half minute once it has listed the documents, unless it is stuck:
	// an API server that is away does not keep it from that. nil: it is not. It must not block.
	Beat func()
}

// Report is what is said of the node.
type Report struct {
	v1alpha1.AgentNodeStatus
	Applied time.Time // when the documents were last put in force, or found to be; zero: never
	Err     error     // why the API server did not take it; nil: it did
}

// Agent is the agent of one node.
type Agent struct {
	Config
	accepted cache.SharedIndexInformer
	dirty    chan struct{}
	applied  time.Time // of Run's goroutine; as Report.Applied
	// Of Run's goroutine. Nothing is reported before the doctor has looked once: a report without handlers would take the node's labels.
	examined bool
	status   v1alpha1.AgentNodeStatus
}

// New returns an agent. It does nothing before Run.
func New(c Config) (*Agent, error) {
	a := &Agent{Config: c, dirty: make(chan struct{}, 1)}
	a.status.Version, a.status.Endpoint = c.Version, c.Endpoint
	a.accepted = dynamicinformer.NewDynamicSharedInformerFactory(c.Client, 0).ForResource(v1alpha1.AcceptedDocuments).Informer()
	if err := a.accepted.SetTransform(v1alpha1.Decoded[v1alpha1.AcceptedDocument]); err != nil {
		return nil, err
	}
	poke := func() {
		select {
		case a.dirty <- struct{}{}:
		default: // it is known already
		}
	}
	_, err := a.accepted.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(_, _ any) { poke() },
		DeleteFunc: func(any) { poke() },
	})
	return a, err
}

// Run works until ctx ends, and returns when everything that it started has ended. As long as the API server cannot be reached it
// waits, and changes nothing.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { a.accepted.Run(ctx.Done()) })
	if !cache.WaitForCacheSync(ctx.Done(), a.accepted.HasSynced) {
		return fmt.Errorf("list the cluster's documents: %w", context.Cause(ctx))
	}
	examined := make(chan []v1alpha1.HandlerStatus)
	running.Go(func() { a.examine(ctx, examined) })
	a.loop(ctx, examined)
	return nil
}

// examine looks at the node's handlers in each heartbeat, and sooner while one is not ready, beside the loop: that may take long.
func (a *Agent) examine(ctx context.Context, examined chan<- []v1alpha1.HandlerStatus) {
	again := recovery
	for {
		found, wait := a.Examine(ctx), Heartbeat
		if ready(found) {
			again = recovery
		} else {
			wait, again = again, min(2*again, Heartbeat)
		}
		select {
		case <-ctx.Done():
			return
		case examined <- found: // whose it is from now on
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - wait/10 + rand.N(wait/5)): //nolint:gosec // nobody gains by guessing it
		}
	}
}

// ready tells whether there are handlers, and all of them are ready.
func ready(handlers []v1alpha1.HandlerStatus) bool {
	return len(handlers) > 0 && !slices.ContainsFunc(handlers, func(h v1alpha1.HandlerStatus) bool { return !h.Ready })
}

func (a *Agent) loop(ctx context.Context, examined <-chan []v1alpha1.HandlerStatus) {
	apply, report, turns := newAlarm(), newAlarm(), time.NewTicker(turn)
	defer apply.Stop()
	defer report.Stop()
	defer turns.Stop()
	apply.within(0)
	for {
		if a.Beat != nil {
			a.Beat()
		}
		select {
		case <-ctx.Done():
			return
		case <-turns.C:
		case <-a.dirty:
			apply.within(a.Settle)
		case <-apply.C:
			apply.set = false
			if a.apply(ctx) && a.examined {
				report.within(a.spread())
			}
		case a.status.Handlers = <-examined:
			for i := range a.status.Handlers {
				a.status.Handlers[i].Reason = bounded(a.status.Handlers[i].Reason)
			}
			a.examined = true
			report.within(a.spread())
		case <-report.C:
			report.set = false
			err := a.report(ctx)
			if ctx.Err() == nil && a.Reported != nil {
				a.Reported(Report{a.status, a.applied, err})
			}
			if err != nil && ctx.Err() == nil {
				log.G(ctx).WithError(err).Warn("the node's state could not be reported; trying again")
				report.within(max(a.spread(), time.Second))
			}
		}
	}
}

// alarm is a timer that goes off once for all that ask for it, so it cannot be put off for ever.
type alarm struct {
	*time.Timer
	set bool
}

func newAlarm() *alarm {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &alarm{Timer: t}
}

// within lets the alarm go off after d, or before if it is set already.
func (a *alarm) within(d time.Duration) {
	if !a.set {
		a.set = true
		a.Reset(d)
	}
}

func (a *Agent) spread() time.Duration {
	return rand.N(max(a.Spread, time.Millisecond)) //nolint:gosec // nobody gains by guessing it
}

// apply puts what is accepted in force, and tells whether the report changed.
func (a *Agent) apply(ctx context.Context) bool {
	versions := map[acceptance.Key]*acceptance.Version{}
	files := []profile.File{}
	for _, object := range a.accepted.GetStore().List() {
		if d, ok := object.(*v1alpha1.AcceptedDocument); ok {
			key := acceptance.Key{Kind: d.Spec.Kind, Name: d.Spec.Name}
			versions[key] = &acceptance.Version{Generation: d.Spec.Generation, Spec: d.Spec.Document}
			files = append(files, acceptance.File(key, versions[key]))
		}
	}
	slices.SortFunc(files, func(a, b profile.File) int { return cmp.Compare(a.Name, b.Name) })
	before := a.status.Profiles
	changed, err := a.Mirror.Put(files)
	if err != nil {
		log.G(ctx).WithError(err).Error("the cluster's documents cannot be put in force here; what was there stays")
		a.status.Profiles.Refused = bounded(err.Error())
		return a.status.Profiles != before
	}
	a.applied = time.Now()
	a.status.Profiles = v1alpha1.ProfilesStatus{Digest: acceptance.Digest(versions)}
	if changed {
		log.G(ctx).WithField("digest", a.status.Profiles.Digest).WithField("documents", len(files)).Info("documents in force")
	}
	return a.status.Profiles != before
}

// maxReason bounds what is reported of an error, in bytes.
const maxReason = 1024

// bounded cuts a text to what a report may say.
func bounded(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

// at is the moment of a report; the API has whole seconds.
func at(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }
