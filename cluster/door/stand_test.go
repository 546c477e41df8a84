// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

const host = "metsuke-controller.metsuke-system.svc"

// authority signs certificates, as the API server's does.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	c := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "front"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign signs a template, by itself if there is no authority.
func (a *authority) sign(t *testing.T, template *x509.Certificate, by *authority) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client is a certificate for a client of this name.
func (a *authority) client(t *testing.T, name string, usage x509.ExtKeyUsage) *tls.Certificate {
	return a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, a)
}

// stand is a door, with an API server that keeps objects in memory, and an agent that answers what it is told to.
type stand struct {
	door    *Door
	front   *authority
	kube    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	address string
	allowed atomic.Bool
	reviews chan authorization.SubjectAccessReviewSpec
	agent   *httptest.Server
	answer  atomic.Pointer[http.HandlerFunc]
	asked   chan *http.Request
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{front: newAuthority(t), reviews: make(chan authorization.SubjectAccessReviewSpec, 1000), asked: make(chan *http.Request, 1000)}
	s.allowed.Store(true)
	s.kube = fake.NewClientset(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: frontNamespace, Name: frontName},
		Data: map[string]string{
			"requestheader-client-ca-file":       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.front.cert.Raw})),
			"requestheader-allowed-names":        `["front-proxy-client"]`,
			"requestheader-username-headers":     `["X-Remote-User"]`,
			"requestheader-group-headers":        `["X-Remote-Group"]`,
			"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		},
	})
	s.kube.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authorization.SubjectAccessReview).DeepCopy()
		s.reviews <- review.Spec
		review.Status.Allowed = s.allowed.Load()
		return true, review, nil
	})
	s.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		v1alpha1.AgentNodes: "AgentNodeList", apiServices: "APIServiceList",
	}, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": question.APIService}, "spec": map[string]any{},
	}})
	s.newAgent(t)
	s.setNode(t, s.agent.Listener.Addr().String(), certificate.Digest(s.agent.TLS.Certificates[0].Certificate[0]))
	s.door = New(Config{Host: host, Dynamic: s.dynamic, Reviews: s.kube.AuthorizationV1(), ConfigMaps: s.kube.CoreV1()})
	s.serve(t)
	return s
}

func (s *stand) newAgent(t *testing.T) {
	t.Helper()
	own, err := certificate.New("n1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.agent = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked <- r
		(*s.answer.Load())(w, r)
	}))
	s.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"kind":"AgentPodList"}`) })
	s.agent.TLS = &tls.Config{Certificates: []tls.Certificate{*own}, ClientAuth: tls.RequireAnyClientCert}
	s.agent.StartTLS()
	t.Cleanup(s.agent.Close)
}

func (s *stand) answers(with http.HandlerFunc) { s.answer.Store(&with) }

// setNode says where the agent of n1 is.
func (s *stand) setNode(t *testing.T, address, digest string) {
	t.Helper()
	object, err := v1alpha1.Encode(&v1alpha1.AgentNode{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindAgentNode},
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Status:     v1alpha1.AgentNodeStatus{Endpoint: &v1alpha1.Endpoint{Address: address, Certificate: digest}},
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes := s.dynamic.Resource(v1alpha1.AgentNodes)
	_ = nodes.Delete(t.Context(), "n1", metav1.DeleteOptions{})
	if _, err := nodes.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *stand) serve(t *testing.T) {
	t.Helper()
	if !s.door.introduce(t.Context()) {
		t.Fatal("not introduced")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.door.serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// get reads a whole answer; see open.
func (s *stand) get(t *testing.T, own *tls.Certificate, path string, headers http.Header) (*http.Response, string, error) {
	t.Helper()
	response := s.open(t, own, path, headers)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}

// open asks as the API server does, with its certificate (nil: none) and whose request it is.
func (s *stand) open(t *testing.T, own *tls.Certificate, path string, headers http.Header) *http.Response {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.door.keys.now().own.Leaf)
	config := &tls.Config{RootCAs: roots, ServerName: host}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = headers
	response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (s *stand) apiServer(t *testing.T) *tls.Certificate {
	return s.front.client(t, "front-proxy-client", x509.ExtKeyUsageClientAuth)
}

var alice = http.Header{
	"X-Remote-User": {"alice"}, "X-Remote-Group": {"devs", "system:authenticated"}, "X-Remote-Extra-Example.org%2fscopes": {"x"},
	"Authorization": {"Bearer secret"}, "Cookie": {"secret"},
}
