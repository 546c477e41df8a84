// SPDX-License-Identifier: Apache-2.0

package question

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/query"
)

var since = time.Date(2026, 11, 29, 10, 0, 0, 5, time.UTC)

func path(text string) query.Path {
	p, err := query.ParsePath(text)
	if err != nil {
		panic(err)
	}
	return p
}

func address(text string) query.Address {
	a, err := query.ParseAddress(text)
	if err != nil {
		panic(err)
	}
	return a
}

// What is written anew is what was parsed, whatever is asked.
func TestRoundTrip(t *testing.T) {
	for _, q := range []Question{
		{About: Pods, Node: "n1", Denials: 10, Lines: 100},
		{About: Pods, Node: "n1.example", Namespace: "team-a", Denials: 10, Lines: 100},
		{About: Pod, Node: "n1", Namespace: "team-a", Pod: "coder.0", Since: since, Denials: 3, Lines: 100},
		{About: Log, Node: "n1", Namespace: "team-a", Pod: "coder", Denials: 10, Lines: 0, Follow: true, Since: since, Chosen: query.Filter{
			Until: since.Add(1), Containers: []string{"a", "b"}, Profiles: []string{"p,q%"}, Execs: []string{query.NoExec, "0123"},
			Kinds: []audit.Kind{"syscall"}, Classes: []string{"net"}, Verdicts: []audit.Verdict{"denied", "killed"}, Syscalls: []string{"openat"},
			Paths: []query.Path{path("/a,b&c=d%2C/**"), path("ü +?")}, Addresses: []query.Address{address("[fd00::/8]:443"), address("unix:/run/**")},
			Process: query.Process{PID: 41, Seq: 7},
		}},
		{About: Log, Node: "n1", Namespace: "team-a", Pod: "coder", Denials: 10, Lines: query.All},
		{About: Doctor, Node: "n1", Denials: 10, Lines: 100},
	} {
		got, err := Parse(q.URL())
		if err != nil {
			t.Errorf("%s: %v", q.URL(), err)
			continue
		}
		if diff := cmp.Diff(q, *got); diff != "" {
			t.Errorf("%s: %s", q.URL(), diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const pod = Root + "/namespaces/a/agentpods/p"
	for _, tt := range []struct{ url, want string }{
		{"/apis", "no such resource"},
		{Root, "no such resource"},
		{Root + "/agentpods/p?node=n", "no such resource"}, // a pod has a namespace
		{Root + "/namespaces/a?node=n", "no such resource"},
		{Root + "/namespaces/a/doctorreports/n", "no such resource"},
		{Root + "/namespaces/a/secrets/p?node=n", "no such resource"},
		{pod + "/exec?node=n", "no such resource"},
		{pod + "/log/more?node=n", "no such resource"},
		{Root + "/namespaces/a/agentpods/p%2Flog?node=n", "no such resource"},
		{Root + "/namespaces/../agentpods?node=n", "no name of a namespace"},
		{Root + "/namespaces/a.b/agentpods?node=n", "no name of a namespace"},
		{Root + "/namespaces//agentpods?node=n", "no name of a namespace"},
		{Root + "/namespaces/a/agentpods/?node=n", "no name"},
		{Root + "/namespaces/a/agentpods/..?node=n", "no name"},
		{pod, "say which node"},
		{pod + "?node=", "no name"},
		{pod + "?node=a/b", "no name"},
		{pod + "?node=n&node=m", "given 2 times"},
		{pod + "?node=n&lines=3", `no parameter "lines"`},
		{pod + "?node=n&namespace=b", `no parameter "namespace"`},
		{pod + "?node=n&denials=1000000", "count"},
		{pod + "/log?node=n&lines=1001", "count of 1000 at most"},
		{pod + "/log?node=n&lines=-2", "count"},
		{pod + "/log?node=n&follow=perhaps", "invalid syntax"},
		{pod + "/log?node=n&verdict=maybe", `"maybe" is none`},
		{pod + "/log?node=n&container=a,", `"" is none`},
		{pod + "/log?node=n&since=yesterday", "RFC 3339"},
		{pod + "/log?node=n&addr=example.org", "must be an address"},
		{pod + "/log?node=n&path=", "must not be empty"},
		{pod + "/log?node=n&process=1@", "PID@SEQ"},
		{pod + "/log?node=n&syscall=a" + strings.Repeat(",a", maxList), "more than"},
		{pod + "/log?node=n&class=" + strings.Repeat("x", maxQuery), "more than"},
	} {
		u, err := url.ParseRequestURI(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse(u)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want %q", tt.url, q, err, tt.want)
		}
		if strings.Contains(tt.want, "no such") != errors.Is(err, ErrNoSuchThing) {
			t.Errorf("%s: %v", tt.url, err)
		}
	}
}

// The access that is decided about is of the namespace and the name that the answer is of.
func TestAccess(t *testing.T) {
	for _, tt := range []struct {
		path string
		want Access
	}{
		{"/agentpods?node=n", Access{Verb: "list", Resource: "agentpods"}},
		{"/namespaces/a/agentpods?node=n", Access{Verb: "list", Resource: "agentpods", Namespace: "a"}},
		{"/namespaces/a/agentpods/p?node=n", Access{Verb: "get", Resource: "agentpods", Namespace: "a", Name: "p"}},
		{"/namespaces/a/agentpods/p/log?node=n", Access{Verb: "get", Resource: "agentpods", Subresource: "log", Namespace: "a", Name: "p"}},
		{"/doctorreports/n", Access{Verb: "get", Resource: "doctorreports", Name: "n"}},
	} {
		u, _ := url.Parse(Root + tt.path)
		q, err := Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, q.Access()); diff != "" {
			t.Errorf("%s: %s", tt.path, diff)
		}
	}
	q := Question{About: Log, Namespace: "a", Pod: "p"}
	if f := q.Filter(); len(f.Namespaces) != 1 || f.Namespaces[0] != "a" || len(f.Pods) != 1 || f.Pods[0] != "a/p" {
		t.Errorf("the filter is %+v", f)
	}
}

func TestRefuseIsPlain(t *testing.T) {
	w := httptest.NewRecorder()
	Refuse(w, 404, "gone\n\x1b[2J\u202e"+strings.Repeat("x", 2*maxMessage))
	if body := w.Body.String(); w.Code != 404 || strings.ContainsAny(body, "\x1b\u202e") || !strings.Contains(body, `"reason":"NotFound"`) || len(body) > maxMessage+500 {
		t.Errorf("%d %s", w.Code, body)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Root+"/namespaces/a/agentpods/p/log", "node=n&follow=true&since=2026-01-31T08:00:00Z")
	f.Add(Root+"/doctorreports/n", "")
	f.Add(Root+"/namespaces/a/agentpods/p/log", "node=n&path=%2Fa%252C**&addr=:443&process=4@7&class=a%2Cb")
	f.Fuzz(func(t *testing.T, path, values string) {
		q, err := Parse(&url.URL{Path: path, RawQuery: values})
		if err != nil {
			return
		}
		again, err := Parse(q.URL())
		if err != nil {
			t.Fatalf("%s: %v", q.URL(), err)
		}
		if diff := cmp.Diff(q, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
