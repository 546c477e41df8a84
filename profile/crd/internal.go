// SPDX-License-Identifier: Apache-2.0

package crd

import "metsuke.dev/metsuke/profile"

// Bounds on what a node says of itself: a stolen node can fill no more of etcd than this.
const (
	maxHandlers = 32
	maxReason   = 1024
)

// acceptedDocument is the definition of v1alpha1.AcceptedDocument. Only the controller writes it, from documents that the API server
// has checked, and nodes check it again: so the schema is loose.
func acceptedDocument() *Definition {
	schema := &Schema{Type: "object", Description: "AcceptedDocument is the version of a document that is in force. The controller writes it; do not.",
		Required: []string{"spec"}, Properties: map[string]*Schema{
			"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"},
			"spec": {Type: "object", Description: "The document's version.", Required: []string{"kind", "name", "generation", "document"}, Properties: map[string]*Schema{
				"kind":       {Type: "string", Enum: []any{profile.KindProfile, profile.KindBinding}, Description: "Kind of the document."},
				"name":       {Type: "string", MaxLength: profile.NameForm().Most, Description: "Name of the document."},
				"generation": generation("Generation of the document."),
				"document":   {Type: "object", Preserve: true, Description: "Spec of the document."},
			}},
		}}
	d := definition("AcceptedDocument", "", []column{
		{Name: "Kind", Type: "string", JSONPath: ".spec.kind", Description: "of the document"},
		{Name: "Document", Type: "string", JSONPath: ".spec.name", Description: "its name"},
		{Name: "Generation", Type: "integer", JSONPath: ".spec.generation", Description: "its generation that is in force"}, age,
	}, schema)
	d.Spec.Versions[0].Subresources = nil
	d.Spec.Names.Categories = nil // people look at documents
	return d
}

// agentNode is the definition of v1alpha1.AgentNode.
func agentNode() *Definition {
	text := func(doc string, most int) *Schema { return &Schema{Type: "string", MaxLength: most, Description: doc} }
	status := &Schema{Type: "object", Description: "What the agent found last.", Properties: map[string]*Schema{
		"version":   text("Version of Metsuke.", 128),
		"heartbeat": {Type: "string", Format: "date-time", Description: "When this was written."},
		"profiles": {Type: "object", Description: "Which documents the node has.", Properties: map[string]*Schema{
			"digest":  text("Digest of the set that is in force there.", 128),
			"refused": text("Why a newer set is not.", 32768),
		}},
		"handlers": {Type: "array", MaxItems: maxHandlers, ListType: "map", ListMapKeys: []string{"name"}, Description: "What the doctor says of each handler.",
			Items: &Schema{Type: "object", Required: []string{"name", "ready"}, Properties: map[string]*Schema{
				"name":   text("Name of the handler.", 63),
				"ready":  {Type: "boolean", Description: "The doctor passes."},
				"reason": text("The first finding, when it does not.", maxReason),
			}}},
		"endpoint": {Type: "object", Description: "Where the agent answers the controller.", Required: []string{"address", "certificate"}, Properties: map[string]*Schema{
			"address":     text("host:port.", 280),
			"certificate": {Type: "string", Pattern: "^[0-9a-f]{64}$", Description: "sha256 of the agent's certificate in DER."},
		}},
	}}
	schema := &Schema{Type: "object", Description: "AgentNode is what a node's agent says of its node. The agent writes it; do not.", Properties: map[string]*Schema{
		"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"}, "status": status,
	}}
	return definition("AgentNode", "an", []column{
		{Name: "Version", Type: "string", JSONPath: ".status.version", Description: "of Metsuke"},
		{Name: "Heartbeat", Type: "date", JSONPath: ".status.heartbeat", Description: "since the agent last wrote"},
		{Name: "Profiles", Type: "string", JSONPath: ".status.profiles.digest", Priority: 1, Description: "digest of the set in force"},
		{Name: "Handlers", Type: "string", JSONPath: ".status.handlers[?(@.ready==true)].name", Description: "handlers that are ready"}, age,
	}, schema)
}
