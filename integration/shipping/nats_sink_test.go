// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	natssink "metsuke.dev/metsuke/audit/sink/nats"
)

// record is one that a sink is handed by a test.
func record(n int, size int) sink.Record {
	return sink.Record{
		ID: fmt.Sprintf("%064x", n), Stream: "team-a_coder_1/agent", Identity: &audit.Identity{Node: "node-1"}, Seq: uint64(n), Kind: audit.KindSyscall,
		Line: []byte(`{"pad":"` + strings.Repeat("x", size) + `"}`),
	}
}

// within is a time that an answer should come in.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair makes an nkey.
func pair(t *testing.T, create func() (nkeys.KeyPair, error)) (key nkeys.KeyPair, public, seed string) {
	t.Helper()
	key, err := create()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = key.PublicKey(); err != nil {
		t.Fatal(err)
	}
	secret, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return key, public, string(secret)
}

// operated makes an operator with one account, and returns the server's configuration for them and the credentials of a user.
func operated(t *testing.T) (serverConfig, creds string) {
	t.Helper()
	operator, operatorPublic, _ := pair(t, nkeys.CreateOperator)
	account, accountPublic, _ := pair(t, nkeys.CreateAccount)
	_, systemPublic, _ := pair(t, nkeys.CreateAccount)
	_, userPublic, userSeed := pair(t, nkeys.CreateUser)
	sign := func(claims jwt.Claims, by nkeys.KeyPair) string {
		text, err := claims.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	of := jwt.NewAccountClaims(accountPublic)
	of.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1, MaxAckPending: -1}
	file, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(userPublic), account), []byte(userSeed))
	if err != nil {
		t.Fatal(err)
	}
	return fill("operator: {OPERATOR}\nsystem_account: {SYSTEM}\nresolver: MEMORY\nresolver_preload: { {ACCOUNT}: {OF ACCOUNT}, {SYSTEM}: {OF SYSTEM} }\n",
		"OPERATOR", sign(jwt.NewOperatorClaims(operatorPublic), operator), "ACCOUNT", accountPublic, "OF ACCOUNT", sign(of, operator),
		"SYSTEM", systemPublic, "OF SYSTEM", sign(jwt.NewAccountClaims(systemPublic), operator)), string(file)
}

// Each way to show who the shipper is works, and fails without a secret in what is said.
func TestNATSCredentials(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	_, userKey, userSeed := pair(t, nkeys.CreateUser)
	_, _, otherSeed := pair(t, nkeys.CreateUser)
	operatedServer, creds := operated(t)
	_, otherCreds := operated(t)
	file := func(name, text string) string { return write(t, dir, name, text) }
	serverTLS := fill(`tls { cert_file: "{CERT}", key_file: "{KEY}", ca_file: "{CA}", verify: {VERIFY} }`,
		"CERT", a.file("server"), "KEY", a.file("server-key"), "CA", a.file("ca"))
	mutual := &config.TLS{CA: a.file("ca"), Cert: a.file("client"), Key: a.file("client-key")}
	for _, test := range []struct {
		name, server string
		right, wrong config.NATS
		scheme       string
	}{
		{
			"password", fmt.Sprintf("authorization { user: metsuke, password: %q }", password),
			config.NATS{Auth: config.AuthPassword, User: "metsuke", Secret: file("password", password+"\n")},
			config.NATS{Auth: config.AuthPassword, User: "metsuke", Secret: file("wrong", "wrong-"+password)}, "nats",
		},
		{
			"token", fmt.Sprintf("authorization { token: %q }", token),
			config.NATS{Auth: config.AuthToken, Secret: file("token", token)},
			config.NATS{Auth: config.AuthToken, Secret: file("wrong-token", "wrong-"+token)}, "nats",
		},
		{
			"nkey", "authorization { users: [ { nkey: " + userKey + " } ] }",
			config.NATS{Auth: config.AuthNKey, Secret: file("seed", userSeed)},
			config.NATS{Auth: config.AuthNKey, Secret: file("other-seed", otherSeed)}, "nats",
		},
		{
			"creds", operatedServer,
			config.NATS{Auth: config.AuthCreds, Secret: file("user.creds", creds)},
			config.NATS{Auth: config.AuthCreds, Secret: file("other.creds", otherCreds)}, "nats",
		},
		{
			"TLS", fill(serverTLS, "VERIFY", "false"),
			config.NATS{TLS: &config.TLS{CA: a.file("ca")}}, config.NATS{}, "tls",
		},
		{"mTLS", fill(serverTLS, "VERIFY", "true"), config.NATS{TLS: mutual}, config.NATS{TLS: &config.TLS{CA: a.file("ca")}}, "tls"},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := map[string][]nats.Option{
				"password": {nats.UserInfo("metsuke", password)}, "token": {nats.Token(token)}, "creds": {nats.UserCredentials(test.right.Secret)},
				"TLS": {nats.RootCAs(a.file("ca"))}, "mTLS": {nats.RootCAs(a.file("ca")), nats.ClientCert(a.file("client"), a.file("client-key"))},
			}[test.name]
			if test.name == "nkey" {
				o, err := nats.NkeyOptionFromSeed(test.right.Secret)
				if err != nil {
					t.Fatal(err)
				}
				options = append(options, o)
			}
			server := startNATS(t, test.server, options...)
			server.setStream(t, -1)
			for _, c := range []*config.NATS{&test.right, &test.wrong} {
				c.Servers, c.Subject, c.Stream = []string{test.scheme + "://" + server.proxy.address()}, subject, jsStream
			}
			right := natssink.New(&test.right)
			defer right.Close(t.Context())
			if err := right.Check(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			if err := right.Send(within(t, patience), []sink.Record{record(1, 10), record(2, 10)}); err != nil {
				t.Fatal(err)
			}
			if n := server.state(t).Msgs; n != 2 {
				t.Errorf("the stream has %d messages", n)
			}
			wrong := natssink.New(&test.wrong)
			defer wrong.Close(t.Context())
			err := wrong.Send(within(t, patience), []sink.Record{record(3, 10)})
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("let in, or not told: %v", err)
			}
			t.Log(err)
			if text := err.Error() + server.process.tail(); strings.Contains(text, password) || strings.Contains(err.Error(), token) ||
				strings.Contains(err.Error(), otherSeed) {
				t.Errorf("a secret is in %s", text)
			}
		})
	}
}

// What JetStream says about records, and about itself.
func TestNATSAnswers(t *testing.T) {
	t.Parallel()
	server := startNATS(t, `
		max_payload: 512KB
		accounts { A { jetstream: enabled, users: [
			{ user: test, password: test }
			{ user: metsuke, password: metsuke, permissions: { publish: [ "metsuke.audit", "nobody.listens" ], subscribe: [ "_INBOX.>" ] } }
		] } }`, nats.UserInfo("test", "test"))
	server.setStream(t, -1)
	c := config.NATS{
		Servers: []string{"nats://" + server.proxy.address()}, Subject: subject, Stream: jsStream,
		Auth: config.AuthPassword, User: "metsuke", Secret: write(t, t.TempDir(), "password", "metsuke"),
	}
	send := func(c config.NATS, batch ...sink.Record) error {
		s := natssink.New(&c)
		defer s.Close(t.Context())
		return s.Send(within(t, patience), batch)
	}
	t.Run("too large", func(t *testing.T) {
		// For the stream, for the server; the others are stored.
		err := send(c, record(1, 10), record(2, 300<<10), record(3, 10), record(4, 600<<10), record(5, 10))
		var refused *sink.RefusedError
		if !errors.As(err, &refused) || refused.Rest != nil || len(refused.Refusals) != 2 {
			t.Fatal(err)
		}
		for i, index := range []int{1, 3} {
			if r := refused.Refusals[i]; r.Index != index || r.Reason != sink.TooLarge {
				t.Errorf("%+v", r)
			}
		}
		if n := server.state(t).Msgs; n != 3 {
			t.Errorf("the stream has %d messages", n)
		}
	})
	t.Run("twice", func(t *testing.T) {
		if err := send(c, record(1, 10), record(6, 10), record(6, 10)); err != nil {
			t.Fatal(err)
		}
		if n := server.state(t).Msgs; n != 4 {
			t.Errorf("the stream has %d messages", n)
		}
	})
	for _, test := range []struct {
		name string
		edit func(*config.NATS)
		want string
	}{
		{"another stream", func(c *config.NATS) { c.Stream = "OTHER" }, "another stream"},
		{"no stream", func(c *config.NATS) { c.Subject = "nobody.listens" }, "make the stream"},
		{"no permission", func(c *config.NATS) { c.Subject = "for.others" }, "ermissions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := c
			test.edit(&c)
			err := send(c, record(7, 10))
			var refused *sink.RefusedError
			if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
				t.Error(err)
			}
		})
	}
	t.Run("full", func(t *testing.T) {
		server.setStream(t, 4096)
		s := natssink.New(&c)
		defer s.Close(t.Context())
		err := s.Send(within(t, patience), []sink.Record{record(8, 8192)})
		if err == nil || !strings.Contains(err.Error(), "full") {
			t.Error(err)
		}
		server.setStream(t, -1)
		if err := s.Send(within(t, patience), []sink.Record{record(8, 8192)}); err != nil {
			t.Error(err)
		}
	})
	t.Run("no answers", func(t *testing.T) {
		s := natssink.New(&c)
		defer s.Close(t.Context())
		if err := s.Check(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		server.proxy.hold(false, true)
		err := s.Send(within(t, time.Second), []sink.Record{record(9, 10)})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		server.proxy.hold(true, true) // and writes get nowhere: more than the kernels hold
		large := make([]sink.Record, 200)
		for i := range large {
			large[i] = record(100+i, 200<<10)
		}
		if err := s.Send(within(t, time.Second), large); err == nil {
			t.Error("arrived")
		}
		server.proxy.hold(false, false)
		server.proxy.reset()
		if err := s.Send(within(t, patience), []sink.Record{record(9, 10)}); err != nil {
			t.Error(err)
		}
		if n := server.state(t).Msgs; n != 6 {
			t.Errorf("the stream has %d messages", n)
		}
	})
}
