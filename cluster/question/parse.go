// SPDX-License-Identifier: Apache-2.0

package question

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/tally"
)

type (
	kind    = audit.Kind
	verdict = audit.Verdict
)

func typed[T ~string](words []string) (out []T) {
	for _, w := range words {
		out = append(out, T(w))
	}
	return out
}

// ErrNoSuchThing is that a path is none of the API's.
var ErrNoSuchThing = errors.New("there is no such resource")

// maxQuery bounds the query of a question, in bytes.
const maxQuery = 4096

// name is a DNS subdomain as Kubernetes takes it for names of pods and nodes (RFC 1123), less strictly: it has no slash.
var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// Parse returns the question of a request's URL. A path that is none of the API's is ErrNoSuchThing; another error says what is
// wrong with the question.
func Parse(u *url.URL) (*Question, error) {
	q, err := parsePath(u)
	if err != nil {
		return nil, err
	}
	if len(u.RawQuery) > maxQuery {
		return nil, fmt.Errorf("the query has more than %d bytes", maxQuery)
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query: %w", err)
	}
	for key, list := range values {
		i := slices.IndexFunc(parameters, func(p parameter) bool { return p.name == key && p.of(q.About) })
		if i < 0 {
			return nil, fmt.Errorf("there is no parameter %q of this", key)
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("%s is given %d times", key, len(list))
		}
		if err := parameters[i].parse(q, list[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if q.Node == "" {
		return nil, errors.New("say which node is asked: node=NAME; kubectl metsuke finds it by itself")
	}
	return q, nil
}

func parsePath(u *url.URL) (*Question, error) {
	rest, ok := strings.CutPrefix(u.Path, Root+"/")
	if !ok || u.RawPath != "" {
		return nil, ErrNoSuchThing
	}
	q := &Question{Denials: 10, Lines: 100}
	parts := strings.Split(rest, "/")
	if parts[0] == "namespaces" && len(parts) > 2 {
		q.Namespace, parts = parts[1], parts[2:]
		if !name.MatchString(q.Namespace) || strings.Contains(q.Namespace, ".") {
			return nil, fmt.Errorf("%q is no name of a namespace", q.Namespace)
		}
	}
	switch {
	case parts[0] == DoctorReports && q.Namespace == "" && len(parts) == 2:
		q.About = Doctor
		return q, setName(&q.Node, parts[1])
	case parts[0] == AgentPods && len(parts) == 1:
		q.About = Pods
		return q, nil
	case parts[0] == AgentPods && q.Namespace != "" && len(parts) == 2:
		q.About = Pod
		return q, setName(&q.Pod, parts[1])
	case parts[0] == AgentPods && q.Namespace != "" && len(parts) == 3 && parts[2] == logOf:
		q.About = Log
		return q, setName(&q.Pod, parts[1])
	}
	return nil, ErrNoSuchThing
}

func setName(to *string, s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("%q is no name", s)
	}
	*to = s
	return nil
}

// parameter is one parameter of a query. text returns nothing for the value that it has without it.
type parameter struct {
	name  string
	of    func(About) bool
	parse func(*Question, string) error
	text  func(*Question) string
}

func only(abouts ...About) func(About) bool {
	return func(a About) bool { return slices.Contains(abouts, a) }
}

var parameters = []parameter{
	{"node", only(Pods, Pod, Log), func(q *Question, s string) error { return setName(&q.Node, s) }, func(q *Question) string { return q.Node }},
	moment("since", only(Pod, Log), func(q *Question) *time.Time { return &q.Since }),
	moment("until", only(Log), func(q *Question) *time.Time { return &q.Until }),
	{"denials", only(Pod), func(q *Question, s string) error { return count(&q.Denials, s, tally.MaxRecent) }, func(q *Question) string { return strconv.Itoa(q.Denials) }},
	{"lines", only(Log), func(q *Question, s string) error {
		if s == "all" {
			q.Lines = query.All
			return nil
		}
		return count(&q.Lines, s, MaxLines)
	}, func(q *Question) string {
		if q.Lines == query.All {
			return "all"
		}
		return strconv.Itoa(q.Lines)
	}},
	{"follow", only(Log), func(q *Question, s string) (err error) {
		q.Follow, err = strconv.ParseBool(s)
		return err
	}, func(q *Question) string {
		if q.Follow {
			return "true"
		}
		return ""
	}},
	words("container", func(q *Question) *[]string { return &q.Containers }, nil),
	words("class", func(q *Question) *[]string { return &q.Classes }, nil),
	words("kind", func(q *Question) *[]string { return &q.Kinds }, audit.Kinds()),
	words("verdict", func(q *Question) *[]string { return &q.Verdicts }, audit.Verdicts()),
}

func count(to *int, s string, most int) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || int(n) > most {
		return fmt.Errorf("must be a count of %d at most", most)
	}
	*to = int(n)
	return nil
}

func moment(name string, of func(About) bool, field func(*Question) *time.Time) parameter {
	return parameter{name, of, func(q *Question, s string) (err error) {
		if *field(q), err = time.Parse(time.RFC3339Nano, s); err != nil {
			return errors.New("must be a time in RFC 3339 (2026-01-31T08:00:00Z)")
		}
		return nil
	}, func(q *Question) string {
		if field(q).IsZero() {
			return ""
		}
		return field(q).UTC().Format(time.RFC3339Nano)
	}}
}

// words is a list of words, of a vocabulary if there is one.
func words(name string, field func(*Question) *[]string, terms []audit.Term) parameter {
	return parameter{name, only(Log), func(q *Question, s string) error {
		*field(q) = nil
		for word := range strings.SplitSeq(s, ",") {
			known := slices.ContainsFunc(terms, func(t audit.Term) bool { return t.Name == word })
			if word == "" || terms != nil && !known {
				return fmt.Errorf("%q is none", word)
			}
			*field(q) = append(*field(q), word)
		}
		return nil
	}, func(q *Question) string { return strings.Join(*field(q), ",") }}
}
