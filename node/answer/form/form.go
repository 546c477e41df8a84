// SPDX-License-Identifier: Apache-2.0

// Package form has the objects that a node's agent answers with. It is apart from the agent, which runs on nodes alone.
package form

import (
	"time"

	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/node/doctor/report"
	"metsuke.dev/metsuke/node/pods"
)

// Meta is what the API wants to know of an object.
type Meta struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
}

// Metadata is an object's name.
type Metadata struct {
	Name              string     `json:"name,omitempty"`
	Namespace         string     `json:"namespace,omitempty"`
	UID               string     `json:"uid,omitempty"`
	CreationTimestamp *time.Time `json:"creationTimestamp,omitempty"`
}

// NewMeta says what an object is.
func NewMeta(kind string, m Metadata) Meta {
	return Meta{question.Group + "/" + question.Version, kind, m}
}

// AgentPod is a pod.
type AgentPod struct {
	Meta
	Node string    `json:"node"`
	Pod  *pods.Pod `json:"pod"`
}

// AgentPodList is the pods of a node.
type AgentPodList struct {
	Meta
	Items []AgentPod `json:"items"`
}

// DoctorReport is what the doctor found.
type DoctorReport struct {
	Meta
	Report *report.Report `json:"report"`
}
