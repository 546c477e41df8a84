// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The readers' API, and what serves it.
const (
	apiServiceURI  = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.reader.metsuke.dev"
	readersRoot    = "/apis/reader.metsuke.dev/v1alpha1"
	controllerPods = "app.kubernetes.io/name=metsuke-controller"
	agentPods      = "app.kubernetes.io/name=metsuke-node"
)

// doorPatience is how long the API server may take to reach the door. It looks every 30 s at least, and gives up after 5 s each time.
const doorPatience = 5 * time.Minute

// reachScript prints what there is between the API server and the door.
//
//go:embed testdata/reach.sh
var reachScript string

// apiService is what the API server says of who serves the readers' API.
type apiService struct {
	Spec struct {
		CABundle []byte `json:"caBundle"`
	} `json:"spec"`
	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

func (c *cluster) apiService(ctx context.Context) (*apiService, error) {
	data, err := c.api.CoreV1().RESTClient().Get().RequestURI(apiServiceURI).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	found := new(apiService)
	return found, json.Unmarshal(data, found)
}

// certificates are those by which doors are known.
func (a *apiService) certificates() map[string]bool {
	all := map[string]bool{}
	for block, more := pem.Decode(a.Spec.CABundle); block != nil; block, more = pem.Decode(more) {
		all[string(block.Bytes)] = true
	}
	return all
}

// reached waits until the API server reaches the door, and logs each change of what it says of that.
func (s *suite) reached() {
	s.t.Helper()
	begun, last := time.Now(), ""
	for {
		available, now := false, "Available is not known"
		found, err := s.apiService(s.ctx)
		if err != nil {
			now = err.Error()
		} else {
			for _, c := range found.Status.Conditions {
				if c.Type == "Available" {
					available, now = c.Status == metav1.ConditionTrue, fmt.Sprintf("Available is %s, %s: %s", c.Status, c.Reason, c.Message)
				}
			}
		}
		waited := time.Since(begun)
		if now != last && s.ctx.Err() == nil {
			s.t.Logf("%.1f s: %s", waited.Seconds(), now)
			last = now
		}
		switch {
		case available:
			return
		case waited > doorPatience:
			s.t.Fatalf("the API server has not reached the door in %v", doorPatience)
		}
		select {
		case <-s.ctx.Done():
			s.t.Fatalf("the API server has not reached the door: %s", last)
		case <-time.After(time.Second):
		}
	}
}

// guard has a test that fails say what there is on the way to the door, and shuts it then: its namespace could not be deleted.
func (c *cluster) guard(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
			c.shut(t)
		}
	})
}

// explain logs what there is between the API server and the door.
func (c *cluster) explain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit) // the test's own may have ended
	defer cancel()
	out, err := c.Nodes[0].Script(ctx, reachScript)
	t.Logf("on the way to the door: %v\n%s", err, out)
}

// shut takes the API away, whatever else has failed. It looks nothing up: discovery is what an API that does not answer breaks.
func (c *cluster) shut(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	if err := c.api.CoreV1().RESTClient().Delete().RequestURI(apiServiceURI).Do(ctx).Error(); err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("the readers' API is still there: %v", err)
	}
}

// user is a client of a user who has the rights that somebody gave them, and no others.
func (s *suite) user(name string) rest.Interface {
	s.t.Helper()
	config := rest.CopyConfig(s.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name}
	api, err := kubernetes.NewForConfig(config)
	s.must(err)
	return api.CoreV1().RESTClient()
}

// ask asks a question, and decodes the answer.
func (s *suite) ask(user rest.Interface, question string, into any) error {
	result := user.Get().RequestURI(readersRoot + question).Do(s.ctx)
	if err := result.Error(); err != nil { // what the door says, where Raw has the code alone
		return err
	}
	data, err := result.Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w in %s", err, data)
	}
	return nil
}

// about is a question about a pod: what of it is empty, or /log.
func about(pod *corev1.Pod, of string) string {
	return fmt.Sprintf("/namespaces/%s/agentpods/%s%s?node=%s", pod.Namespace, pod.Name, of, pod.Spec.NodeName)
}

// follower gets the stream of a pod as a reader does.
type follower struct {
	lines chan string // closed at the end
	err   error       // after that; nil is an end in order, as of an answer that is whole
}

// follow begins to follow a pod's stream.
func (s *suite) follow(user rest.Interface, pod *corev1.Pod) *follower {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	var body io.ReadCloser
	s.eventually("an answer that follows", func() (err error) {
		body, err = user.Get().RequestURI(readersRoot + about(pod, "/log") + "&follow=true&lines=all").Stream(ctx)
		return err
	})
	f := &follower{lines: make(chan string, 1024)} // nobody takes them while a test waits
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(f.lines)
		in := bufio.NewScanner(body)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			select {
			case f.lines <- in.Text():
			case <-ctx.Done():
			}
		}
		f.err = in.Err()
	}()
	s.t.Cleanup(func() { // before the namespace goes, or it would be followed to its end
		cancel()
		_ = body.Close()
		<-ended
	})
	return f
}

// next waits for a line that has the text, and passes over those before it.
func (f *follower) next(s *suite, text string) {
	s.t.Helper()
	for {
		select {
		case line, ok := <-f.lines:
			if !ok {
				s.t.Fatalf("the stream ended before %q: %v", text, f.err)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-s.ctx.Done():
			s.t.Fatalf("%q did not come", text)
		}
	}
}

// cut waits for the stream's end, which must not look like that of a whole answer.
func (f *follower) cut(s *suite, why string) {
	s.t.Helper()
	for {
		select {
		case _, ok := <-f.lines:
			switch {
			case ok:
				continue
			case f.err == nil:
				s.t.Errorf("the stream ended in order, though %s: it looks whole", why)
			case errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded):
				s.t.Errorf("the stream did not end, though %s: %v", why, f.err)
			}
			return
		case <-s.ctx.Done():
			s.t.Fatalf("the stream goes on, though %s", why)
		}
	}
}
