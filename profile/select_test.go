// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"strings"
	"testing"
)

func TestSelect(t *testing.T) {
	s := load(t, profiles("coder", "{}", "browser", "{}", "other", "{}")+bindings(
		"team-a", `{namespaces: [team-a], default: coder, allowed: [browser], containers: [
			{names: [proxy, "*-sidecar"], images: ["registry.example.com/mesh/*"], profile: passthrough},
			{images: ["**/chromium:*"], profile: browser}]}`,
		"choose", "{namespaces: [choose], allowed: [coder, browser]}",
		"closed", "{namespaces: [closed]}",
		"only", "{namespaces: [only], containers: [{names: [a], profile: other}]}",
	))
	rest := load(t, profiles("coder", "{}")+bindings("rest", `{namespaces: ["*"], default: coder}`, "one", "{namespaces: [one], default: baseline}"))
	asks := func(name string) map[string]string {
		return map[string]string{Annotation: name, "other/annotation": "x"}
	}
	for _, c := range []struct {
		name string
		set  *Set
		pod  Pod
		def  string
		want string // "profile reason binding", or part of the error
	}{
		{"no binding: baseline", s, Pod{Namespace: "x"}, "", "baseline configuration "},
		{"no binding: the configuration's", s, Pod{Namespace: "x"}, "coder", "coder configuration "},
		{"no binding: may ask for that", s, Pod{Namespace: "x", Annotations: asks("coder")}, "coder", "coder configuration "},
		{"no binding: for nothing else", s, Pod{Namespace: "x", Annotations: asks("browser")}, "coder",
			`the annotation metsuke.dev/profile asks for "browser", and in namespace "x" the node's configuration (no binding names the namespace) allows coder`},
		{"no binding: not for passthrough", s, Pod{Namespace: "x", Annotations: asks("passthrough")}, "", "allows baseline"},
		{"no binding: an unknown default", s, Pod{Namespace: "x"}, "codr", `default profile of the configuration: there is no profile "codr"; did you mean coder?`},
		{"no binding: passthrough is no default", s, Pod{Namespace: "x"}, "passthrough", "only a binding can give"},
		{"no binding, no namespace", s, Pod{}, "", "baseline configuration "},

		{"the binding's default", s, Pod{Namespace: "team-a", Container: "agent", Image: "docker.io/x/y:1"}, "other", "coder binding default team-a"},
		{"the annotation", s, Pod{Namespace: "team-a", Annotations: asks("browser")}, "", "browser annotation team-a"},
		{"the annotation may name the default", s, Pod{Namespace: "team-a", Annotations: asks("coder")}, "", "coder annotation team-a"},
		{"not what is not allowed", s, Pod{Namespace: "team-a", Annotations: asks("other")}, "",
			`asks for "other", and in namespace "team-a" the binding team-a (/p/p.yaml:19) allows coder or browser`},
		{"nor what does not exist", s, Pod{Namespace: "team-a", Annotations: asks("nope")}, "", `asks for "nope"`},
		{"an empty annotation is not none", s, Pod{Namespace: "team-a", Annotations: asks("")}, "", `asks for ""`},
		{"a long one is cut", s, Pod{Namespace: "team-a", Annotations: asks(strings.Repeat("x", 1<<16))}, "", `…, and in`},
		{"a control character is quoted", s, Pod{Namespace: "team-a", Annotations: asks("a\nb")}, "", `asks for "a\nb"`},

		{"by name and image", s, Pod{Namespace: "team-a", Container: "proxy", Image: "registry.example.com/mesh/proxy@sha256:00"}, "", "passthrough container team-a"},
		{"by a pattern of the name", s, Pod{Namespace: "team-a", Container: "log-sidecar", Image: "registry.example.com/mesh/x:1"}, "", "passthrough container team-a"},
		{"the name alone is not enough", s, Pod{Namespace: "team-a", Container: "proxy", Image: "evil.example/x/registry.example.com/mesh/x"}, "", "coder binding default team-a"},
		{"nor is the image", s, Pod{Namespace: "team-a", Container: "x", Image: "registry.example.com/mesh/x:1"}, "", "coder binding default team-a"},
		{"by image alone", s, Pod{Namespace: "team-a", Container: "x", Image: "docker.io/foo/chromium:120"}, "", "browser container team-a"},
		{"a container rule wins over the annotation", s, Pod{Namespace: "team-a", Container: "proxy", Image: "registry.example.com/mesh/x:1", Annotations: asks("coder")}, "", "passthrough container team-a"},
		{"but the annotation must be allowed", s, Pod{Namespace: "team-a", Container: "proxy", Image: "registry.example.com/mesh/x:1", Annotations: asks("other")}, "", `asks for "other"`},

		{"no default: must choose", s, Pod{Namespace: "choose", Container: "c"}, "", `binding choose (/p/p.yaml:26) has no default for container "c"; set the pod annotation metsuke.dev/profile to coder or browser`},
		{"no default: chooses", s, Pod{Namespace: "choose", Annotations: asks("coder")}, "", "coder annotation choose"},
		{"nothing allowed", s, Pod{Namespace: "closed", Container: "c"}, "", `the binding closed (/p/p.yaml:31) allows no profile to container "c" in namespace "closed"`},
		{"nothing allowed, whatever it asks", s, Pod{Namespace: "closed", Annotations: asks("baseline")}, "", "allows none"},
		{"only some containers", s, Pod{Namespace: "only", Container: "a"}, "", "other container only"},
		{"and no others", s, Pod{Namespace: "only", Container: "b"}, "", "allows no profile"},

		{"every other namespace", rest, Pod{Namespace: "x"}, "baseline", "coder binding default rest"},
		{"a name before the star", rest, Pod{Namespace: "one"}, "", "baseline binding default one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, why, err := c.set.Select(c.pod, Defaults{Profile: c.def})
			got := name + " " + string(why.Reason) + " " + why.Binding
			if err != nil {
				if name != "" || !errors.Is(err, ErrNotAllowed) && !strings.Contains(c.want, "configuration: there is no") {
					t.Errorf("%q with %v", name, err)
				}
				if !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
				return
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (why.Source.Line > 0) != (why.Binding != "") {
				t.Errorf("source %v", why.Source)
			}
			if _, err := c.set.Resolve(name); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"ab", "a", false}, {"", "", true}, {"", "a", false},
		{"*", "", true}, {"*", "abc", true}, {"*", "a/b", false}, {"**", "a/b", true}, {"**", "", true},
		{"a*c", "ac", true}, {"a*c", "abbc", true}, {"a*c", "a/c", false}, {"a**c", "a/c", true}, {"a*", "ba", false},
		{"*.example.com/app:*", "x.example.com/app:1", true}, {"*.example.com/app:*", "evil.io/x.example.com/app:1", false},
		{"docker.io/library/*", "docker.io/library/python:3", true}, {"docker.io/library/*", "docker.io/library/a/b", false},
		{"docker.io/**", "docker.io/a/b/c:1", true}, {"**/x", "x", false}, {"a.c", "abc", false}, {"[a]", "a", false}, {"[a]", "[a]", true},
		{"*a*a*a*a*b", strings.Repeat("a", 200), false}, {"*a*", "xay", true}, {"*/*", "a/b", true}, {"?", "a", false},
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%q, %.40q) = %v", c.pattern, c.s, got)
		}
	}
}
