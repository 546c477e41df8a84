// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"metsuke.dev/metsuke/internal/tomlfile"
)

// NATS is a stream of NATS JetStream.
type NATS struct {
	Servers []string // nats://HOST:PORT or tls://HOST:PORT each, all of one cluster and one scheme
	Subject string   // that is published to
	Stream  string   // that must store what is published there
	TLS     *TLS     // nil: with tls://, the system's authorities and no certificate of ours
	Auth    Auth     // empty: none but the certificate
	Secret  string   // file, whose contents are as Auth says
	User    string   // for AuthPassword
}

// Auth says how the shipper shows who it is, and with that what is in the file of its secret.
type Auth string

// The kinds of it.
const (
	AuthCreds    Auth = "creds"    // a user's JWT and seed, as nsc writes them
	AuthNKey     Auth = "nkey"     // a seed
	AuthToken    Auth = "token"    // a token
	AuthPassword Auth = "password" // the password of a user
)

var (
	subjectForm = regexp.MustCompile(`^[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*$`)
	streamForm  = regexp.MustCompile(`^[^\s.*>/\\\x00-\x1f\x7f]{1,255}$`)
)

var natsFields = slices.Concat([]tomlfile.Field[*Sink]{
	{Path: "servers", Hide: true, Set: func(s *Sink, v any) string {
		return list(&s.NATS.Servers, v, "nats://HOST:PORT or tls://HOST:PORT, without a user", func(text string) bool {
			u, err := url.Parse(text)
			return err == nil && (u.Scheme == "nats" || u.Scheme == "tls") && u.Hostname() != "" && u.User == nil && u.Path+u.RawQuery+u.Fragment == ""
		})
	}},
	{Path: "subject", Set: func(s *Sink, v any) string {
		name, _ := v.(string)
		if len(name) > 255 || !subjectForm.MatchString(name) {
			return "a subject without wildcards, such as \"metsuke.audit\""
		}
		s.NATS.Subject = name
		return ""
	}},
	{Path: "stream", Set: func(s *Sink, v any) string {
		name, _ := v.(string)
		if !streamForm.MatchString(name) {
			return "the name of a stream: no blanks, none of . * > / \\"
		}
		s.NATS.Stream = name
		return ""
	}},
	{Path: "auth", Set: func(s *Sink, v any) string {
		return tomlfile.Word(&s.NATS.Auth, v, AuthCreds, AuthNKey, AuthToken, AuthPassword)
	}},
	{Path: "secret", Hide: true, Set: func(s *Sink, v any) string { return tomlfile.Path(&s.NATS.Secret, v) }},
	{Path: "user", Set: func(s *Sink, v any) string { return tomlfile.Text(&s.NATS.User, v, maxText) }},
}, tlsFields(func(s *Sink) **TLS { return &s.NATS.TLS }))

var natsRequired = []required{
	{"servers", "the cluster's servers, such as [\"tls://nats.example:4222\"]"}, {"subject", "the subject to publish to"},
	{"stream", "the name of the stream that stores what is published there"},
}

func checkNATS(f *tomlfile.File, s *Sink, at string) {
	n := s.NATS
	checkTLS(f, n.TLS, at)
	plain, remote := false, false
	for i, server := range n.Servers {
		u, err := url.Parse(server)
		if err != nil {
			continue // cannot be: it was parsed before
		}
		plain, remote = plain || u.Scheme == "nats", remote || !Loopback(u.Hostname())
		if !strings.HasPrefix(n.Servers[0], u.Scheme+":") {
			f.Errorf(at+".servers", "has tls:// and nats:// ("+tomlfile.Show(n.Servers[i])+")", "expected one of them for all servers")
			return
		}
	}
	if plain && n.TLS != nil {
		f.Errorf(at+".tls", "is for servers that are nats://", "expected tls://…, or no tls")
	}
	if plain && remote && n.Auth != "" {
		f.Errorf(at+".auth", "would be sent in clear text", "expected servers tls://…, or ones on this machine")
	}
	if (n.Auth == "") != (n.Secret == "") {
		f.Errorf(at, "has only one of auth and secret", "expected both, or none")
	}
	if (n.Auth == AuthPassword) != (n.User != "") {
		f.Errorf(at+".user", "goes with auth = \"password\", and only with that", "expected both, or none")
	}
}
