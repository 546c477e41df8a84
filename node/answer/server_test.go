// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/doctor/report"
	"metsuke.dev/metsuke/node/pods/podstest"
)

// stand is a server for a node that has pods of two teams and a container of nobody's.
type stand struct {
	*podstest.Node
	server     *Server
	address    string
	controller *tls.Certificate
	lookups    atomic.Int32
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{Node: podstest.New(t), controller: identity(t)}
	denied := func(n int) (events []audit.Event) {
		for i := range n {
			events = append(events, audit.Event{Time: podstest.Moment.Add(time.Duration(i) * time.Second), Kind: audit.KindSyscall,
				Syscall: &audit.Syscall{Syscall: "bpf", Verdict: audit.VerdictDenied, Errno: "EPERM"}})
		}
		return events
	}
	s.Add(podstest.Pod{Namespace: "team-a", Name: "coder", ID: "aaaa11111111", Containers: []podstest.Container{
		{Name: "agent", ID: "a1a1a1a1a1a1", Events: denied(3), State: tasktypes.Status_RUNNING}}})
	s.Add(podstest.Pod{Namespace: "team-b", Name: "coder", ID: "bbbb22222222", Containers: []podstest.Container{
		{Name: "agent", ID: "b1b1b1b1b1b1", Events: denied(2), State: tasktypes.Status_RUNNING}}})
	var err error
	s.server, err = New(Config{
		Node:        "n1",
		Directories: func() (config.Directories, error) { return config.Directories{State: s.State(), Audit: s.Audit()}, nil },
		Controllers: func(context.Context) (certificate.Bundle, error) {
			s.lookups.Add(1)
			return certificate.Bundle{s.controller.Leaf}, nil
		},
		Doctor: func(context.Context) (*report.Report, error) {
			return &report.Report{Version: "v1", Findings: []report.Finding{}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func identity(t *testing.T) *tls.Certificate {
	t.Helper()
	c, err := certificate.New("metsuke-controller.metsuke-system.svc", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// client is one with its own key, which pins the server.
func (s *stand) client(own ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, VerifyConnection: certificate.Pinned(s.server.Digest()), Certificates: own,
	}}}
}

func (s *stand) get(t *testing.T, path string) (int, string) {
	t.Helper()
	r, err := s.client(*s.controller).Get("https://" + s.address + question.Root + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// A question about a namespace is answered from what bears its name.
func TestAnswers(t *testing.T) {
	s := newStand(t)
	for _, tt := range []struct {
		path      string
		code      int
		has, lack string
	}{
		{"/agentpods?node=n1", 200, `"namespace":"team-b"`, "nothing"},
		{"/namespaces/team-a/agentpods?node=n1", 200, `"kind":"AgentPodList"`, "team-b"},
		{"/namespaces/team-c/agentpods?node=n1", 200, `"items":[]`, "team-"},
		{"/namespaces/team-a/agentpods/coder?node=n1", 200, `"node":"n1"`, "team-b"},
		{"/namespaces/team-a/agentpods/gone?node=n1", 404, `"reason":"NotFound"`, "items"},
		{"/namespaces/team-a/agentpods/aaaa11111111?node=n1", 404, "no pod team-a/aaaa11111111", "items"}, // an id is no name
		{"/namespaces/team-b/agentpods/coder/log?node=n1&verdict=denied", 200, `"namespace":"team-b"`, "team-a"},
		{"/namespaces/team-c/agentpods/coder/log?node=n1", 200, "", "team"},
		{"/doctorreports/n1", 200, `"kind":"DoctorReport"`, "team"},
		{"/agentpods?node=n2", 404, "this is node n1", "items"},
		{"/namespaces/team-a/agentpods/coder/exec?node=n1", 404, "no such resource", "items"},
		{"/namespaces/team-a/agentpods/coder?node=n1&config=x", 400, "no parameter", "items"},
	} {
		code, body := s.get(t, tt.path)
		if code != tt.code || !strings.Contains(body, tt.has) || strings.Contains(body, tt.lack) {
			t.Errorf("%s: %d %s", tt.path, code, body)
		}
	}
	_, body := s.get(t, "/namespaces/team-a/agentpods/coder/log?node=n1&lines=2")
	if strings.Count(body, "\n") != 2 || !strings.Contains(body, `"seq":3`) {
		t.Errorf("the last two records are %s", body)
	}
	r, err := s.client(*s.controller).Post("https://"+s.address+question.Root+"/agentpods?node=n1", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Body.Close(); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}
}

// Containers that are no pods of the cluster belong to no namespace of it.
func TestContainersOfNobody(t *testing.T) {
	s := newStand(t)
	id := audit.Identity{Namespace: "team-a", Pod: "forged", Container: "c"}
	w, err := stream.OpenWriter(stream.Dir(s.Audit(), id), id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := s.get(t, "/namespaces/team-a/agentpods/forged/log?node=n1"); code != 200 || body != "" {
		t.Errorf("%d %q", code, body)
	}
}

// Only who has the key of a certificate that the cluster names is answered; strangers do not make the agent ask the API server each time.
func TestStrangers(t *testing.T) {
	s := newStand(t)
	url := "https://" + s.address + question.Root + "/agentpods?node=n1"
	began := time.Now()
	stranger := identity(t)
	stolen := tls.Certificate{Certificate: s.controller.Certificate, PrivateKey: stranger.PrivateKey} // the certificate is no secret
	both := tls.Certificate{Certificate: [][]byte{stranger.Certificate[0], s.controller.Certificate[0]}, PrivateKey: stranger.PrivateKey}
	for name, c := range map[string][]tls.Certificate{"none": nil, "of another": {*stranger}, "without its key": {stolen}, "behind another": {both}} {
		if r, err := s.client(c...).Get(url); err == nil {
			r.Body.Close()
			t.Errorf("%s: answered with %d", name, r.StatusCode)
		}
	}
	if took, n := time.Since(began), s.lookups.Load(); n > 1+int32(took/askAgain) {
		t.Errorf("the API server was asked %d times in %v", n, took)
	}
	s.server.mu.Lock()
	s.server.asked = time.Time{} // the time for the next look has come
	s.server.mu.Unlock()
	if code, body := s.get(t, "/agentpods?node=n1"); code != 200 {
		t.Errorf("the controller: %d %s", code, body)
	}
	old := s.controller
	s.controller = identity(t) // another replica, or a new key
	s.server.mu.Lock()
	s.server.asked = time.Time{}
	s.server.mu.Unlock()
	if code, _ := s.get(t, "/agentpods?node=n1"); code != 200 {
		t.Errorf("the new certificate: %d", code)
	}
	if r, err := s.client(*old).Get(url); err == nil {
		r.Body.Close()
		t.Error("a certificate is taken that the cluster does not name any more")
	}
}

// A namespace has so many readers, and others still get in.
func TestTooManyReaders(t *testing.T) {
	s := newStand(t)
	for range maxOfNamespace {
		if _, ok := s.server.places.Enter("team-a"); !ok {
			t.Fatal("no place")
		}
	}
	if code, body := s.get(t, "/namespaces/team-a/agentpods?node=n1"); code != http.StatusTooManyRequests {
		t.Errorf("%d %s", code, body)
	}
	if code, body := s.get(t, "/namespaces/team-b/agentpods?node=n1"); code != http.StatusOK {
		t.Errorf("another namespace: %d %s", code, body)
	}
}

// What is written while somebody follows arrives, of pods that come later too.
func TestFollow(t *testing.T) {
	s := newStand(t)
	r, err := s.client(*s.controller).Get("https://" + s.address + question.Root + "/namespaces/team-a/agentpods/late/log?node=n1&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	id := audit.Identity{Namespace: "team-a", Pod: "late", PodUID: "u", Container: "c"}
	w, err := stream.OpenWriter(stream.Dir(s.Audit(), id), id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	in := bufio.NewReader(r.Body)
	for n := 1; n <= 3; n++ {
		if err := w.Append(&audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}}); err != nil {
			t.Fatal(err)
		}
		line, err := in.ReadBytes('\n')
		var record struct{ Seq int }
		if err != nil || json.Unmarshal(line, &record) != nil || record.Seq != n {
			t.Fatalf("%s %v", line, err)
		}
	}
}

// A reader that takes nothing loses its place; nobody waits for it but itself.
func TestStalledReader(t *testing.T) {
	s := newStand(t)
	s.server.stall = 100 * time.Millisecond
	id := audit.Identity{Namespace: "team-a", Pod: "loud", PodUID: "u", Container: "c"}
	w, err := stream.OpenWriter(stream.Dir(s.Audit(), id), id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	long := strings.Repeat("x", 4096)
	for range 8192 { // more than sockets hold
		if err := w.Append(&audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "openat", Verdict: audit.VerdictAllowed,
			Args: []audit.Arg{{Name: "path", Value: long, Evidence: audit.EvidencePeeked}}}}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.client(*s.controller).Get("https://" + s.address + question.Root + "/namespaces/team-a/agentpods/loud/log?node=n1&lines=all")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	for s.server.places.Taken() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		t.Error("an answer that was cut off looks whole")
	}
}
