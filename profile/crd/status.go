// SPDX-License-Identifier: Apache-2.0

package crd

// Bounds on lists in a status. A node takes no more documents than maxUsers.
const (
	maxUsers      = 1024
	maxConditions = 8
)

var documentColumns = []column{
	{Name: "Accepted", Type: "string", JSONPath: `.status.conditions[?(@.type=="Accepted")].status`, Description: "the newest version is in force"},
	{Name: "Rolled-Out", Type: "string", JSONPath: `.status.conditions[?(@.type=="RolledOut")].status`, Description: "every node has what is in force"},
	{Name: "Nodes", Type: "integer", JSONPath: ".status.nodes.acknowledged", Description: "nodes that have what is in force"},
	{Name: "Of", Type: "integer", JSONPath: ".status.nodes.total", Description: "nodes whose agents report"},
	{Name: "Refused", Type: "integer", JSONPath: ".status.nodes.refused", Priority: 1, Description: "nodes that keep another set"},
}

var age = column{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp", Description: "since it was made"}

func profileColumns() []column {
	columns := append([]column{{Name: "Extends", Type: "string", JSONPath: ".spec.extends", Description: "profiles that this one builds on"}}, documentColumns...)
	return append(columns, column{Name: "Digest", Type: "string", JSONPath: ".status.inForce.digest", Priority: 1, Description: "of what is in force, as events have it"}, age)
}

func bindingColumns() []column {
	return append(append([]column{
		{Name: "Namespaces", Type: "string", JSONPath: ".spec.namespaces", Description: "namespaces that it is for"},
		{Name: "Default", Type: "string", JSONPath: ".spec.default", Description: "profile of pods that choose none"},
		{Name: "Allowed", Type: "string", JSONPath: ".spec.allowed", Description: "profiles that pods may choose"},
	}, documentColumns...), age)
}

// statusSchema is that of v1alpha1.DocumentStatus of package cluster/v1alpha1.
func statusSchema() *Schema {
	return &Schema{
		Type: "object", Description: "What became of the object. The controller writes it.",
		Properties: map[string]*Schema{
			"observedGeneration": generation("Generation that the rest of the status speaks of."),
			"inForce": {Type: "object", Description: "The version that nodes enforce; absent while no version is in force.", Required: []string{"generation"}, Properties: map[string]*Schema{
				"generation": generation("Its generation: an older one while the newest is refused."),
				"digest": {Type: "string", MaxLength: 64,
					Description: "Of a profile: the digest with all that it extends, as events have it on a node without a floor."},
			}},
			"usedBy": {Type: "array", MaxItems: maxUsers, ListType: "atomic",
				Description: "Documents in force that refer to the profile, as Kind/name. While there are any it stays in force.",
				Items:       &Schema{Type: "string"}},
			"nodes": {Type: "object", Description: "How far the version in force has come.", Properties: map[string]*Schema{
				"total":        count("Nodes whose agents report."),
				"acknowledged": count("Of these, nodes that have it in force."),
				"refused":      count("Of these, nodes that keep another set, since they cannot take this one."),
			}},
			"conditions": {
				Type: "array", MaxItems: maxConditions, ListType: "map", ListMapKeys: []string{"type"},
				Description: "Accepted: the newest version is in force. RolledOut: every node has acknowledged what is in force.",
				Items:       condition(),
			},
		},
	}
}

func count(doc string) *Schema {
	return &Schema{Type: "integer", Format: "int32", Minimum: pointer(0), Description: doc}
}

func generation(doc string) *Schema {
	return &Schema{Type: "integer", Format: "int64", Minimum: pointer(0), Description: doc}
}

// condition is the schema of metav1.Condition (k8s.io/apimachinery/pkg/apis/meta/v1).
func condition() *Schema {
	return &Schema{
		Type: "object", Required: []string{"type", "status", "lastTransitionTime", "reason", "message"},
		Properties: map[string]*Schema{
			"type":               {Type: "string", MaxLength: 316, Description: "Accepted or RolledOut."},
			"status":             {Type: "string", Enum: []any{"True", "False", "Unknown"}, Description: "Whether it holds."},
			"observedGeneration": generation("Generation that the condition speaks of."),
			"lastTransitionTime": {Type: "string", Format: "date-time", Description: "When the status last changed."},
			"reason":             {Type: "string", MinLength: 1, MaxLength: 1024, Pattern: `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`, Description: "Why, as one word."},
			"message":            {Type: "string", MaxLength: 32768, Description: "Why, for people."},
		},
	}
}
