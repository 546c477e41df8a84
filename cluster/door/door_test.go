// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorization "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
)

const logs = question.Root + "/namespaces/team-a/agentpods/coder/log?node=n1"

// What headers say of the user counts only of the API server, which has the key of a certificate of its authority, for clients, with its name.
func TestForgedHeaders(t *testing.T) {
	s := newStand(t)
	other := newAuthority(t)
	expired := s.front.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "front-proxy-client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, s.front)
	for name, c := range map[string]*tls.Certificate{
		"none":              nil,
		"of another":        other.client(t, "front-proxy-client", x509.ExtKeyUsageClientAuth),
		"with another name": s.front.client(t, "kubelet", x509.ExtKeyUsageClientAuth),
		"of a server":       s.front.client(t, "front-proxy-client", x509.ExtKeyUsageServerAuth),
		"expired":           expired,
		"the door's own":    s.door.keys.now().own,
	} {
		for _, path := range []string{logs, question.Root, "/"} {
			if r, body, _ := s.get(t, c, path, alice); r.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s: %d %s", name, path, r.StatusCode, body)
			}
		}
	}
	if r, body, _ := s.get(t, s.apiServer(t), logs, http.Header{"X-Remote-Group": {"system:masters"}}); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", r.StatusCode, body)
	}
	if len(s.reviews) > 0 || len(s.asked) > 0 {
		t.Error("somebody was asked about a stranger")
	}
}

// The API server is asked about the user and the question, and the agent gets the question, and nothing of the caller's.
func TestAllowed(t *testing.T) {
	s := newStand(t)
	r, body, err := s.get(t, s.apiServer(t), question.Root+"/namespaces/team-a/agentpods/coder?node=n1", alice)
	if err != nil || r.StatusCode != http.StatusOK || body != `{"kind":"AgentPodList"}` {
		t.Fatalf("%d %s %v", r.StatusCode, body, err)
	}
	want := authorization.SubjectAccessReviewSpec{
		User: "alice", Groups: []string{"devs", "system:authenticated"}, Extra: map[string]authorization.ExtraValue{"example.org/scopes": {"x"}},
		ResourceAttributes: &authorization.ResourceAttributes{
			Group: "reader.metsuke.dev", Version: "v1alpha1", Verb: "get", Resource: "agentpods", Namespace: "team-a", Name: "coder",
		},
	}
	if diff := cmp.Diff(want, <-s.reviews); diff != "" {
		t.Error(diff)
	}
	asked := <-s.asked
	if got := asked.URL.String(); got != question.Root+"/namespaces/team-a/agentpods/coder?denials=10&node=n1" {
		t.Errorf("the agent was asked %s", got)
	}
	for h := range asked.Header {
		if h != "Accept-Encoding" && h != "Connection" { // the connection is for one question
			t.Errorf("the agent sees the header %s", h)
		}
	}
	if peer := asked.TLS.PeerCertificates[0]; certificate.Digest(peer.Raw) != certificate.Digest(s.door.keys.now().own.Leaf.Raw) {
		t.Error("the door proved itself by another key")
	}
}

// Nobody who may not is answered, and no node hears of it.
func TestDenied(t *testing.T) {
	s := newStand(t)
	s.allowed.Store(false)
	r, body, _ := s.get(t, s.apiServer(t), logs, alice)
	if r.StatusCode != http.StatusForbidden || !strings.Contains(body, "may not get agentpods/log in API group reader.metsuke.dev in namespace team-a") {
		t.Errorf("%d %s", r.StatusCode, body)
	}
	if len(s.asked) > 0 {
		t.Error("the agent was asked")
	}
}

func TestRefusals(t *testing.T) {
	s := newStand(t)
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{question.Root, 200, `"groupVersion":"reader.metsuke.dev/v1alpha1"`},
		{"/apis", 404, "no such resource"},
		{"/openapi/v2", 404, "no such resource"},
		{question.Root + "/agentpods", 400, "say which node"},
		{question.Root + "/agentpods?node=n2", 404, "no agent of Metsuke's reports for node n2"},
		{question.Root + "/namespaces/a/agentpods/p/exec?node=n1", 404, "no such resource"},
	} {
		if r, body, _ := s.get(t, s.apiServer(t), tt.path, alice); r.StatusCode != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s", tt.path, r.StatusCode, body)
		}
	}
	for range maxOfUser {
		s.door.places.Enter("alice")
	}
	if r, _, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("too many: %d", r.StatusCode)
	}
}

// What a node answers is data, or none: it can neither redirect nor set anything, nor pass for another.
func TestHostileNode(t *testing.T) {
	s := newStand(t)
	s.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = io.WriteString(w, "<script>")
	})
	r, _, _ := s.get(t, s.apiServer(t), logs, alice)
	if got := r.Header.Get("Content-Type"); got != question.Records || r.Header.Get("Set-Cookie") != "" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", r.Header)
	}
	for _, code := range []int{http.StatusFound, http.StatusUnauthorized, http.StatusSwitchingProtocols, http.StatusNoContent} {
		s.answers(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.Header().Set("Connection", "upgrade")
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(code)
		})
		if r, body, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Location") != "" {
			t.Errorf("%d: %d %s %v", code, r.StatusCode, body, r.Header)
		}
	}
	for len(s.asked) > 0 {
		<-s.asked
	}
	s.setNode(t, s.agent.Listener.Addr().String(), strings.Repeat("0", 64))
	if r, _, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusServiceUnavailable || len(s.asked) > 0 {
		t.Errorf("another certificate than the published one: %d", r.StatusCode)
	}
	for _, address := range []string{"", "127.0.0.1", "kube-dns.kube-system:53", "127.0.0.1:1"} { // the node writes it
		s.setNode(t, address, strings.Repeat("0", 64))
		if r, _, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("address %q: %d", address, r.StatusCode)
		}
	}
}

// An answer that the agent does not finish is cut off at the reader too.
func TestAgentGone(t *testing.T) {
	s := newStand(t)
	s.answers(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if r, body, err := s.get(t, s.apiServer(t), logs, alice); err == nil {
		t.Errorf("%d %q looks whole", r.StatusCode, body)
	}
	s.door.answer = 50 * time.Millisecond
	s.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if r, body, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("an agent that says nothing: %d %s", r.StatusCode, body)
	}
	s.agent.Close()
	if r, body, _ := s.get(t, s.apiServer(t), logs, alice); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "the agent of node n1 does not answer") {
		t.Errorf("%d %s", r.StatusCode, body)
	}
}

// Who may not any more does not go on following.
func TestRevoked(t *testing.T) {
	s := newStand(t)
	s.door.again = 10 * time.Millisecond
	gone := make(chan struct{})
	s.answers(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{}\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	response := s.open(t, s.apiServer(t), logs+"&follow=true", alice)
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "{}\n" {
		t.Fatalf("%q, %v", line, err)
	}
	s.allowed.Store(false) // not before: an answer that has not begun cannot look whole
	if rest, err := io.ReadAll(lines); err == nil {
		t.Errorf("%q looks whole", rest)
	}
	<-gone // the agent is not asked any more
}

// Replicas publish their certificates side by side, and leave alone what is there.
func TestPublish(t *testing.T) {
	s := newStand(t)
	other := New(s.door.Config)
	if !other.introduce(t.Context()) {
		t.Fatal("not introduced")
	}
	bundle := func() certificate.Bundle {
		o, err := s.dynamic.Resource(apiServices).Get(t.Context(), question.APIService, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := unstructured.NestedString(o.Object, "spec", "caBundle")
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return certificate.ParseBundle(data)
	}
	if b := bundle(); len(b) != 2 || !b.Has(s.door.keys.now().own.Leaf, time.Now()) || !b.Has(other.keys.now().own.Leaf, time.Now()) {
		t.Errorf("%d certificates", len(b))
	}
	before := other.keys.now().own
	if err := other.refresh(t.Context()); err != nil || other.keys.now().own != before || len(bundle()) != 2 {
		t.Errorf("a refresh changes something: %v", err)
	}
	other.keys.made = time.Now().Add(-renewal - time.Minute)
	if err := other.refresh(t.Context()); err != nil || other.keys.now().own == before || len(bundle()) != 3 {
		t.Errorf("an old key is not renewed: %v", err)
	}
}

// Without the authority that vouches for the API server nobody is taken for it.
func TestFrontIsStrict(t *testing.T) {
	for _, data := range []map[string]string{
		nil,
		{"requestheader-client-ca-file": "none", "requestheader-username-headers": `["X-Remote-User"]`},
		{"requestheader-client-ca-file": string(certificate.Bundle{newAuthority(t).cert}.PEM())},
		{"requestheader-client-ca-file": string(certificate.Bundle{newAuthority(t).cert}.PEM()), "requestheader-username-headers": `X-Remote-User`},
	} {
		if _, err := newFront(&corev1.ConfigMap{Data: data}); err == nil {
			t.Errorf("taken: %v", data)
		}
	}
}
