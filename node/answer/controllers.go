// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"context"
	"encoding/base64"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
)

var apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}

// Controllers returns how to look up the certificates of controllers: they are those by which the API server knows the servers of the
// readers' API.
func Controllers(client dynamic.Interface) func(context.Context) (certificate.Bundle, error) {
	return func(ctx context.Context) (certificate.Bundle, error) {
		object, err := client.Resource(apiServices).Get(ctx, question.APIService, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		text, _, err := unstructured.NestedString(object.Object, "spec", "caBundle")
		if err != nil {
			return nil, err
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("caBundle of APIService %s: %w", question.APIService, err)
		}
		return certificate.ParseBundle(data), nil
	}
}
