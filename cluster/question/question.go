// SPDX-License-Identifier: Apache-2.0

// Package question has what readers ask nodes, as requests of the aggregated API reader.metsuke.dev: one form for who asks, for the
// controller that decides whether they may, and for the agent that answers.
//
// A Question is parsed strictly and written anew at each step, so what was decided about is what is answered.
package question

import (
	"net/url"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit/query"
)

// The API.
const (
	Group   = "reader.metsuke.dev"
	Version = "v1alpha1"
	Root    = "/apis/" + Group + "/" + Version
	// APIService is the name of the object by which the API server knows who serves it.
	APIService = Version + "." + Group
)

// About is what a question is about.
type About int

// What can be asked.
const (
	Pods   About = iota // the pods of a node, or those of one namespace: an AgentPodList
	Pod                 // all that is known of one: an AgentPod
	Log                 // the records of its streams, one a line, as they are stored
	Doctor              // what the doctor finds on a node: a DoctorReport
)

// The resources, as roles name them, and the kinds of what is answered.
const (
	AgentPods     = "agentpods"
	DoctorReports = "doctorreports"
	logOf         = "log" // the API server lets only few subresources last longer than a minute: this is one

	KindPod     = "AgentPod"
	KindPodList = "AgentPodList"
	KindReport  = "DoctorReport"
)

// MaxLines bounds how many records from before are asked for; an agent keeps them in memory. All of them can be asked for too.
const MaxLines = 1000

// Question is one question to the agent of one node.
type Question struct {
	About     About
	Node      string
	Namespace string // empty: all, of Pods alone
	Pod       string // its name; of Pod and Log

	Since   time.Time // of Pod: count from then on; of Log: records from then on
	Denials int       // of Pod: the newest so many

	// Of Log.
	Lines  int          // the newest so many of what there is, or query.All
	Follow bool         // go on
	Chosen query.Filter // which records, but for the namespace, the pod and Since, which are said above
}

// Access is what a role has to allow for a question.
type Access struct {
	Verb, Resource, Subresource string
	Namespace, Name             string // empty: all
}

// Access returns what a role has to allow.
func (q *Question) Access() Access {
	switch q.About {
	case Doctor:
		return Access{Verb: "get", Resource: DoctorReports, Name: q.Node}
	case Pods:
		return Access{Verb: "list", Resource: AgentPods, Namespace: q.Namespace}
	case Log:
		return Access{Verb: "get", Resource: AgentPods, Subresource: logOf, Namespace: q.Namespace, Name: q.Pod}
	}
	return Access{Verb: "get", Resource: AgentPods, Namespace: q.Namespace, Name: q.Pod}
}

// URL returns the path and query of the question.
func (q *Question) URL() *url.URL {
	path := []string{Root}
	if q.Namespace != "" {
		path = append(path, "namespaces", q.Namespace)
	}
	switch q.About {
	case Doctor:
		path = append(path, DoctorReports, q.Node)
	case Pods:
		path = append(path, AgentPods)
	case Pod:
		path = append(path, AgentPods, q.Pod)
	case Log:
		path = append(path, AgentPods, q.Pod, logOf)
	}
	values := url.Values{}
	for _, p := range parameters {
		if p.of(q.About) {
			if text := p.text(q); text != "" {
				values.Set(p.name, text)
			}
		}
	}
	return &url.URL{Path: strings.Join(path, "/"), RawQuery: values.Encode()}
}

// Filter returns what chooses the records of a Log.
func (q *Question) Filter() *query.Filter {
	f := q.Chosen
	f.Namespaces, f.Pods, f.Since = []string{q.Namespace}, []string{q.Namespace + "/" + q.Pod}, q.Since
	return &f
}
