// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/door"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/answer"
	"metsuke.dev/metsuke/node/doctor/report"
	"metsuke.dev/metsuke/node/pods/podstest"
)

const doorName = "metsuke-controller.metsuke-system.svc"

// stand is a cluster of one node in this process: an API server that knows a few objects and is in front of the door, the door, and the
// node's agent. Users are who their tokens say.
type stand struct {
	*podstest.Node
	t      *testing.T
	api    *httptest.Server
	front  *tls.Certificate // by which the API server proves itself
	door   string           // its address
	report report.Report

	mu      sync.Mutex
	objects map[string]map[string]any // by path
	allowed map[string]bool           // "user verb resource namespace"
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{Node: podstest.New(t), t: t, objects: map[string]map[string]any{}, allowed: map[string]bool{}}
	var err error
	if s.front, err = certificate.New("front-proxy-client", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	s.objects["/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"] = map[string]any{"data": map[string]any{
		"requestheader-client-ca-file":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.front.Leaf.Raw})),
		"requestheader-allowed-names":    `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`,
		"requestheader-group-headers":    `["X-Remote-Group"]`,
	}}
	s.objects["/apis/apiregistration.k8s.io/v1/apiservices/"+question.APIService] = map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": question.APIService}, "spec": map[string]any{},
	}
	s.api = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.api.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	s.startAgent(ctx, &running)
	s.startDoor(ctx, &running)
	return s
}

// as is how a user reaches the API server.
func (s *stand) as(user string) *rest.Config {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.api.Certificate().Raw})
	return &rest.Config{Host: s.api.URL, BearerToken: user, ContentConfig: rest.ContentConfig{ContentType: "application/json"}, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *stand) startAgent(ctx context.Context, running *sync.WaitGroup) {
	client := must[*dynamic.DynamicClient](s.t)(dynamic.NewForConfig(s.as("agent")))
	server := must[*answer.Server](s.t)(answer.New(answer.Config{
		Node: "n1", Controllers: answer.Controllers(client),
		Directories: func() (config.Directories, error) { return config.Directories{State: s.State(), Audit: s.Audit()}, nil },
		Doctor:      func(context.Context) (*report.Report, error) { return &s.report, nil },
	}))
	l := must[net.Listener](s.t)(net.Listen("tcp", "127.0.0.1:0"))
	running.Go(func() { _ = server.Serve(ctx, l) })
	s.objects["/apis/metsuke.dev/v1alpha1/agentnodes/n1"] = map[string]any{
		"apiVersion": "metsuke.dev/v1alpha1", "kind": "AgentNode", "metadata": map[string]any{"name": "n1"},
		"status": map[string]any{
			"version": "v1", "heartbeat": "2026-11-29T10:00:00Z", "profiles": map[string]any{"digest": ""},
			"handlers": []any{map[string]any{"name": "metsuke-runc", "ready": true}},
			"endpoint": map[string]any{"address": l.Addr().String(), "certificate": server.Digest()},
		},
	}
}

func (s *stand) startDoor(ctx context.Context, running *sync.WaitGroup) {
	l := must[net.Listener](s.t)(net.Listen("tcp", "127.0.0.2:0")) // where nobody else takes the port meanwhile
	s.door = l.Addr().String()
	_ = l.Close() // the door listens there by itself
	own := s.as("controller")
	d := door.New(door.Config{
		Host: doorName, Dynamic: must[*dynamic.DynamicClient](s.t)(dynamic.NewForConfig(own)),
		Reviews: must[*authorization.AuthorizationV1Client](s.t)(authorization.NewForConfig(own)), ConfigMaps: must[*core.CoreV1Client](s.t)(core.NewForConfig(own)),
	})
	running.Go(func() {
		if err := d.Serve(ctx, s.door); err != nil {
			s.t.Error(err)
		}
	})
	for {
		if c, err := net.Dial("tcp", s.door); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// pod makes a pod, at the API server and on the node.
func (s *stand) pod(p podstest.Pod) {
	s.Add(p)
	s.objects["/api/v1/namespaces/"+p.Namespace+"/pods/"+p.Name] = map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": p.Name, "namespace": p.Namespace},
		"spec": map[string]any{"nodeName": "n1", "runtimeClassName": "metsuke-runc"},
	}
}

// serve is the API server.
func (s *stand) serve(w http.ResponseWriter, r *http.Request) {
	user := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if strings.HasPrefix(r.URL.Path, question.Root) {
		s.aggregate(w, r, user)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/subjectaccessreviews"):
		s.review(w, r)
	case r.Method == http.MethodPut:
		var object map[string]any
		_ = json.NewDecoder(r.Body).Decode(&object)
		s.objects[r.URL.Path] = object
		question.Write(w, http.StatusOK, object)
	default:
		s.get(w, r)
	}
}

func (s *stand) review(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Spec struct {
			User               string            `json:"user"`
			ResourceAttributes map[string]string `json:"resourceAttributes"`
		} `json:"spec"`
	}
	_ = json.NewDecoder(r.Body).Decode(&review)
	a := review.Spec.ResourceAttributes
	key := strings.TrimRight(fmt.Sprintf("%s %s %s/%s", review.Spec.User, a["verb"], a["resource"], a["subresource"]), "/") + " " + a["namespace"]
	question.Write(w, http.StatusCreated, map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": map[string]any{"allowed": s.allowed[key]},
	})
}

// get returns an object, or those below a path.
func (s *stand) get(w http.ResponseWriter, r *http.Request) {
	if object := s.objects[r.URL.Path]; object != nil {
		question.Write(w, http.StatusOK, object)
		return
	}
	prefix, all := r.URL.Path+"/", r.URL.Path == "/api/v1/pods"
	items := []any{}
	for path, object := range s.objects {
		if strings.HasPrefix(path, prefix) || all && strings.Contains(path, "/pods/") {
			items = append(items, object)
		}
	}
	if strings.HasSuffix(r.URL.Path, "s") {
		question.Write(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}, "items": items})
		return
	}
	question.Refuse(w, http.StatusNotFound, "there is none")
}

// aggregate forwards a request to the door, as kube-aggregator does.
func (s *stand) aggregate(w http.ResponseWriter, r *http.Request, user string) {
	s.mu.Lock()
	spec, _ := s.objects["/apis/apiregistration.k8s.io/v1/apiservices/"+question.APIService]["spec"].(map[string]any)
	text, _ := spec["caBundle"].(string)
	s.mu.Unlock()
	bundle, _ := base64.StdEncoding.DecodeString(text)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: s.door})
			p.Out.Header.Del("Authorization")
			p.Out.Header.Set("X-Remote-User", user)
		},
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: roots, ServerName: doorName, Certificates: []tls.Certificate{*s.front},
		}},
		FlushInterval: -1,
	}
	proxy.ServeHTTP(w, r)
}

// kubectl runs a command line as a user.
func (s *stand) kubectl(ctx context.Context, user string, args ...string) (code int, out, errs string) {
	s.t.Helper()
	var o strings.Builder
	code, errs = s.into(ctx, user, &o, args...)
	return code, o.String(), errs
}

func (s *stand) into(ctx context.Context, user string, out io.Writer, args ...string) (code int, errs string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "config")
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.api.Certificate().Raw}))
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u","namespace":"team-a"}}],
"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority-data":%q}}],"users":[{"name":"u","user":{"token":%q}}]}`, s.api.URL, ca, user)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var e strings.Builder
	code = run(ctx, append(args, "--kubeconfig", file), out, &e)
	return code, e.String()
}

func (s *stand) allow(rights ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rights {
		s.allowed[r] = true
	}
}

// watched waits for a text.
type watched struct {
	text  strings.Builder
	until string
	then  func()
	seen  bool
}

func (w *watched) Write(p []byte) (int, error) {
	w.text.Write(p)
	if strings.Contains(w.text.String(), w.until) && !w.seen {
		w.seen = true
		w.then()
	}
	return len(p), nil
}
