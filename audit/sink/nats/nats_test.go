// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

var _ sink.Sink = (*Sink)(nil)

func TestMessage(t *testing.T) {
	c := &config.NATS{Subject: "metsuke.audit", Stream: "AUDIT"}
	r := sink.Record{ID: "c0ffee", Stream: "ns_pod_uid/agent", Kind: audit.KindSyscall, Line: []byte(`{"v":1}`)}
	m := message(c, &r)
	if m.Subject != "metsuke.audit" || string(m.Data) != `{"v":1}` || len(m.Header) != 4 {
		t.Errorf("%+v", m)
	}
	for name, want := range map[string]string{
		"Nats-Msg-Id": "c0ffee", "Nats-Expected-Stream": "AUDIT", "Metsuke-Kind": "syscall", "Metsuke-Stream": "ns_pod_uid/agent",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if r.Stream = ""; len(message(c, &r).Header) != 3 {
		t.Errorf("a statement about the node: %v", message(c, &r).Header)
	}
}

// What a server is shown it may repeat, which is not passed on.
func TestRepeatedToken(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	connect := make(chan string, 1)
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("INFO {\"server_id\":\"x\",\"max_payload\":1048576,\"headers\":true,\"auth_required\":true}\r\n"))
		line, _ := bufio.NewReader(c).ReadString('\n')
		connect <- line
		_, _ = c.Write([]byte("-ERR 'who is hunter2?'\r\n"))
	}()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(&config.NATS{Servers: []string{"nats://" + server.Addr().String()}, Auth: config.AuthToken, Secret: token})
	err = s.Check(t.Context())
	if line := <-connect; !strings.Contains(line, "hunter2") {
		t.Fatalf("the server was not shown the token: %s", line)
	}
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "who is") {
		t.Error(err)
	}
}

// A server that is away, one that says nothing, and files that are not as they must be: each ends in time, with what is wrong, and nothing secret.
func TestNoServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	here := []string{"nats://" + silent.Addr().String()}
	for _, test := range []struct {
		name   string
		config config.NATS
		want   string
	}{
		{"away", config.NATS{Servers: []string{"nats://" + away.Addr().String()}}, "no servers"},
		{"silent", config.NATS{Servers: here}, ""},
		{"silent TLS", config.NATS{Servers: []string{"tls://" + silent.Addr().String()}}, ""},
		{"no authorities", config.NATS{Servers: []string{"tls://" + silent.Addr().String()}, TLS: &config.TLS{CA: "/does/not/exist"}}, "/does/not/exist"},
		{"no token", config.NATS{Servers: here, Auth: config.AuthToken, Secret: "/does/not/exist"}, "/does/not/exist"},
		{"no nkey", config.NATS{Servers: here, Auth: config.AuthNKey, Secret: secret}, "is not the seed of an nkey"},
		{"no credentials", config.NATS{Servers: here, Auth: config.AuthCreds, Secret: secret}, ""},
		{"an unknown auth", config.NATS{Servers: here, Auth: "x", Secret: secret}, `"x"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New(&test.config)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := s.Send(ctx, []sink.Record{{ID: "1", Identity: &audit.Identity{}, Line: []byte("{}")}})
			var refused *sink.RefusedError
			if err == nil || errors.As(err, &refused) {
				t.Fatalf("%v", err)
			}
			if text := err.Error(); !strings.Contains(text, test.want) || strings.Contains(text, "hunter2") {
				t.Error(text)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
