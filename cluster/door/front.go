// SPDX-License-Identifier: Apache-2.0

package door

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// User is who asks, as the API server authenticated it.
type User struct {
	Name, UID string
	Groups    []string
	Extra     map[string][]string
}

// Front is how the API server proves itself when it forwards a request, and says whose it is: what it keeps in the ConfigMap
// kube-system/extension-apiserver-authentication ("Configure the Aggregation Layer" in the Kubernetes documentation;
// k8s.io/apiserver/pkg/authentication/request/headerrequest does the same).
type Front struct {
	roots                   *x509.CertPool
	names                   []string // common names of its certificate; empty: any
	user, uid, group, extra []string
}

// newFront reads the ConfigMap. One without a certificate authority is an error: everybody could be the API server then.
func newFront(c *corev1.ConfigMap) (*Front, error) {
	f := &Front{roots: x509.NewCertPool()}
	if !f.roots.AppendCertsFromPEM([]byte(c.Data["requestheader-client-ca-file"])) {
		return nil, errors.New("requestheader-client-ca-file has no certificate: the API server is not set up for aggregated APIs (its --requestheader-… flags)")
	}
	for key, list := range map[string]*[]string{
		"requestheader-allowed-names": &f.names, "requestheader-username-headers": &f.user, "requestheader-uid-headers": &f.uid,
		"requestheader-group-headers": &f.group, "requestheader-extra-headers-prefix": &f.extra,
	} {
		if text := c.Data[key]; text != "" {
			if err := json.Unmarshal([]byte(text), list); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	if len(f.user) == 0 {
		return nil, errors.New("requestheader-username-headers names none")
	}
	return f, nil
}

var errNotFront = errors.New("the request does not come from the API server")

// Authenticate returns whose request it is. Headers say that, and are read only of a request from the API server.
func (f *Front) Authenticate(r *http.Request, now time.Time) (*User, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, errNotFront
	}
	leaf, between := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: f.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, errNotFront
	}
	if len(f.names) > 0 && !slices.Contains(f.names, leaf.Subject.CommonName) {
		return nil, errNotFront
	}
	u := &User{Name: first(r.Header, f.user), UID: first(r.Header, f.uid), Extra: map[string][]string{}}
	if u.Name == "" {
		return nil, errNotFront
	}
	for _, h := range f.group {
		u.Groups = append(u.Groups, r.Header.Values(h)...)
	}
	for _, prefix := range f.extra {
		for h, values := range r.Header {
			if len(h) > len(prefix) && strings.EqualFold(h[:len(prefix)], prefix) {
				key := strings.ToLower(h[len(prefix):])
				if plain, err := url.PathUnescape(key); err == nil {
					key = plain
				}
				u.Extra[key] = append(u.Extra[key], values...)
			}
		}
	}
	return u, nil
}

func first(h http.Header, names []string) string {
	for _, n := range names {
		if v := h.Get(n); v != "" {
			return v
		}
	}
	return ""
}
