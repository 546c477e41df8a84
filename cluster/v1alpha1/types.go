// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 has the objects of metsuke.dev/v1alpha1 as the API server stores them.
//
// Specs are kept as they were written: package profile decodes them. The schemas are in deploy.
package v1alpha1

import (
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of all objects here.
var GroupVersion = schema.GroupVersion{Group: "metsuke.dev", Version: "v1alpha1"}

// The resources. All are cluster-scoped.
var (
	AgentProfiles     = GroupVersion.WithResource("agentprofiles")
	ProfileBindings   = GroupVersion.WithResource("profilebindings")
	AcceptedDocuments = GroupVersion.WithResource("accepteddocuments")
	AgentNodes        = GroupVersion.WithResource("agentnodes")
)

// The kinds beside those of documents, which are package profile's.
const (
	KindAcceptedDocument = "AcceptedDocument"
	KindAgentNode        = "AgentNode"
)

const (
	// HandlerLabel and a handler's name make the label of nodes on which the handler's doctor passes; its value is Ready.
	HandlerLabel = "handler.metsuke.dev/"
	// Ready is the value of the label.
	Ready = "ready"
)

// Document is an AgentProfile or a ProfileBinding.
type Document struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   json.RawMessage `json:"spec"`
	Status DocumentStatus  `json:"status"`
}

// DocumentStatus is what the controller says of a document.
type DocumentStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	InForce            *InForce           `json:"inForce,omitempty"` // nil: no version of it is
	UsedBy             []string           `json:"usedBy,omitempty"`  // "Kind/name" of the documents in force that refer to a profile
	Nodes              NodeCounts         `json:"nodes"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// The types of a document's conditions.
const (
	Accepted  = "Accepted"  // the newest spec is in force
	RolledOut = "RolledOut" // every node has acknowledged what is in force
)

// InForce names the version that nodes enforce.
type InForce struct {
	Generation int64  `json:"generation"`
	Digest     string `json:"digest,omitempty"` // of a profile with all that it extends, as in events; hex
}

// NodeCounts says how far the version in force has come.
type NodeCounts struct {
	Total        int `json:"total"`        // nodes whose agents report
	Acknowledged int `json:"acknowledged"` // of these, nodes that have it in force
	Refused      int `json:"refused"`      // of these, nodes that keep another set, since they cannot take this one
}

// AcceptedDocument is the version of a document that is in force. The controller writes it, and nodes read nothing else of documents:
// what authors write reaches them only once it is accepted, and what the controller says about documents never wakes them.
type AcceptedDocument struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"` // the name is that of AcceptedName

	Spec AcceptedSpec `json:"spec"`
}

// AcceptedSpec is a document's version.
type AcceptedSpec struct {
	Kind       string          `json:"kind"`       // of the document
	Name       string          `json:"name"`       // of the document
	Generation int64           `json:"generation"` // the document's
	Document   json.RawMessage `json:"document"`   // its spec
}

// AcceptedName is the name of a document's AcceptedDocument.
func AcceptedName(kind, name string) string { return strings.ToLower(kind) + "." + name }

// AgentNode is what a node's agent says of its node. The node writes it, so nothing in it is to be trusted further than the node.
type AgentNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Status AgentNodeStatus `json:"status"`
}

// AgentNodeStatus is what the agent found last.
type AgentNodeStatus struct {
	Version   string          `json:"version"`   // of Metsuke
	Heartbeat metav1.Time     `json:"heartbeat"` // when this was written
	Profiles  ProfilesStatus  `json:"profiles"`
	Handlers  []HandlerStatus `json:"handlers,omitempty"`
	Endpoint  *Endpoint       `json:"endpoint,omitempty"`
}

// ProfilesStatus is which documents a node has.
type ProfilesStatus struct {
	Digest  string `json:"digest"`            // acceptance.Digest of what is in force there
	Refused string `json:"refused,omitempty"` // why a newer set is not
}

// HandlerStatus is what the doctor says of a handler of the node's containerd.
type HandlerStatus struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // the first finding, when it is not ready
}

// Endpoint is where the agent answers the controller.
type Endpoint struct {
	Address     string `json:"address"`     // host:port
	Certificate string `json:"certificate"` // sha256 of the agent's certificate in DER, hex
}

// Decode turns an object of a dynamic client into *T, one of the types above.
func Decode[T any](u *unstructured.Unstructured) (*T, error) {
	data, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return v, nil
}

// Decoded is [Decode] as an informer's cache.TransformFunc: objects are decoded when they arrive. What is no object of a dynamic client stays.
func Decoded[T any](object any) (any, error) {
	if u, ok := object.(*unstructured.Unstructured); ok {
		return Decode[T](u)
	}
	return object, nil
}

// Encode turns one of the types above into an object for a dynamic client.
func Encode(v any) (*unstructured.Unstructured, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v)
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: object}, nil
}
