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
	moment("until", only(Log), func(q *Question) *time.Time { return &q.Chosen.Until }),
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
	list("container", func(q *Question) *[]string { return &q.Chosen.Containers }, word[string](nil), itself[string]),
	list("profile", func(q *Question) *[]string { return &q.Chosen.Profiles }, word[string](nil), itself[string]),
	list("exec", func(q *Question) *[]string { return &q.Chosen.Execs }, word[string](nil), itself[string]),
	list("class", func(q *Question) *[]string { return &q.Chosen.Classes }, word[string](nil), itself[string]),
	list("syscall", func(q *Question) *[]string { return &q.Chosen.Syscalls }, word[string](nil), itself[string]),
	list("kind", func(q *Question) *[]audit.Kind { return &q.Chosen.Kinds }, word[audit.Kind](audit.Kinds()), itself[audit.Kind]),
	list("verdict", func(q *Question) *[]audit.Verdict { return &q.Chosen.Verdicts }, word[audit.Verdict](audit.Verdicts()), itself[audit.Verdict]),
	list("path", func(q *Question) *[]query.Path { return &q.Chosen.Paths }, query.ParsePath, query.Path.String),
	list("addr", func(q *Question) *[]query.Address { return &q.Chosen.Addresses }, query.ParseAddress, query.Address.String),
	{"process", only(Log), func(q *Question, s string) (err error) {
		q.Chosen.Process, err = query.ParseProcess(s)
		return err
	}, func(q *Question) string { return q.Chosen.Process.String() }},
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

// maxList bounds how many values a list has: each is compared with each record.
const maxList = 64

// list is a list of values, which are escaped in it, so that they may have commas.
func list[T any](name string, field func(*Question) *[]T, parse func(string) (T, error), text func(T) string) parameter {
	return parameter{name, only(Log), func(q *Question, s string) error {
		values := strings.Split(s, ",")
		if len(values) > maxList {
			return fmt.Errorf("has more than %d values", maxList)
		}
		*field(q) = nil
		for _, escaped := range values {
			value, err := url.QueryUnescape(escaped)
			if err != nil {
				return err
			}
			one, err := parse(value)
			if err != nil {
				return fmt.Errorf("%q is none: %w", value, err)
			}
			*field(q) = append(*field(q), one)
		}
		return nil
	}, func(q *Question) string {
		var values []string
		for _, one := range *field(q) {
			values = append(values, url.QueryEscape(text(one)))
		}
		return strings.Join(values, ",")
	}}
}

// word reads a word, of a vocabulary if there is one.
func word[T ~string](terms []audit.Term) func(string) (T, error) {
	return func(s string) (T, error) {
		known := slices.ContainsFunc(terms, func(t audit.Term) bool { return t.Name == s })
		if s == "" || terms != nil && !known {
			return "", errors.New("not a word that there is")
		}
		return T(s), nil
	}
}

func itself[T ~string](s T) string { return string(s) }
