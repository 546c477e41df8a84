// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"errors"
	"testing"

	"sigs.k8s.io/yaml"
)

// verdicts are what three readers say of one document.
type verdicts struct {
	text    []byte
	file    error // a node, of the document as a file
	server  error // the API server, of what kubectl apply makes of it
	cluster error // a node, of what the API server stored; nil if it stored nothing
}

// judge asks all three.
func judge(t testing.TB, servers map[string]*server, text []byte) verdicts {
	t.Helper()
	v := verdicts{text: text, file: node(text)}
	data, err := yaml.YAMLToJSON(text) // what kubectl does
	if err != nil {
		v.server = err
		return v
	}
	var o object
	if err := yaml.Unmarshal(data, &o); err != nil {
		v.server = err
		return v
	}
	s, ok := servers[o.Kind]
	if !ok || o.APIVersion != "metsuke.dev/v1alpha1" {
		v.server = errors.New("no matches for kind")
		return v
	}
	stored, errs := s.create(data)
	if v.server = errors.Join(errs...); v.server == nil {
		v.cluster = node(fromCluster(t, stored))
	}
	return v
}

// agree says where the readers differ without an exception that allows it, and notes the exceptions that it needed.
func (v verdicts) agree(used map[string]bool) (problem string) {
	switch {
	case v.server != nil && v.file == nil:
		if !allowed(serverOnly, v.text, v.server, used) {
			return "the API server refuses what a node takes: " + v.server.Error()
		}
	case v.server == nil && v.cluster != nil:
		if !allowed(nodeOnly, v.text, v.cluster, used) {
			return "the API server takes what a node refuses: " + v.cluster.Error()
		}
	case v.server == nil && v.file != nil:
		if !allowed(fileOnly, v.text, v.file, used) {
			return "kubectl apply takes what a node refuses as a file: " + v.file.Error()
		}
	}
	return ""
}
