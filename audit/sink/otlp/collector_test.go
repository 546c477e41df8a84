// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collogpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/audit/shipper/config"
)

// A collector speaks both protocols.
type collector struct {
	collogpb.UnimplementedLogsServiceServer

	mu       sync.Mutex
	requests []*collogpb.ExportLogsServiceRequest
	tokens   []string
	answer   func(*collogpb.ExportLogsServiceRequest) (*collogpb.ExportLogsServiceResponse, error) // nil: takes all
}

func (c *collector) take(req *collogpb.ExportLogsServiceRequest, token string) (*collogpb.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests, c.tokens = append(c.requests, req), append(c.tokens, token)
	if c.answer != nil {
		return c.answer(req)
	}
	return &collogpb.ExportLogsServiceResponse{}, nil
}

// Export implements the service for gRPC.
func (c *collector) Export(ctx context.Context, req *collogpb.ExportLogsServiceRequest) (*collogpb.ExportLogsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return c.take(req, strings.Join(md.Get("authorization"), "|"))
}

// statuses are what an error is in HTTP.
var statuses = map[codes.Code]int{
	codes.InvalidArgument: 400, codes.Unauthenticated: 401, codes.NotFound: 404, codes.ResourceExhausted: 413, codes.Internal: 500, codes.Unavailable: 503,
}

// ServeHTTP is the same for HTTP.
func (c *collector) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	var body io.Reader = in.Body
	if in.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	req := &collogpb.ExportLogsServiceRequest{}
	if err = errors.Join(err, proto.Unmarshal(data, req)); err != nil || in.URL.Path != "/v1/logs" {
		http.Error(w, "no such path", 404)
		return
	}
	said, err := c.take(req, in.Header.Get("authorization"))
	if err != nil {
		http.Error(w, status.Convert(err).Message(), statuses[status.Code(err)])
		return
	}
	out, err := proto.Marshal(said)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	w.Header().Set("Content-Type", protobuf)
	_, _ = w.Write(out)
}

// serve has the collector listen, with TLS if there is one, and returns its address.
func (c *collector) serve(t *testing.T, protocol config.Protocol, secured *tls.Config) string {
	t.Helper()
	if protocol == config.ProtocolHTTP {
		server := httptest.NewUnstartedServer(c)
		if server.TLS = secured; secured != nil {
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var o []grpc.ServerOption
	if secured != nil {
		o = append(o, grpc.Creds(grpccredentials.NewTLS(secured)))
	}
	server := grpc.NewServer(o...)
	collogpb.RegisterLogsServiceServer(server, c)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func protocols(t *testing.T, test func(t *testing.T, protocol config.Protocol)) {
	for _, p := range []config.Protocol{config.ProtocolGRPC, config.ProtocolHTTP} {
		t.Run(strings.ReplaceAll(string(p), "/", "-"), func(t *testing.T) { test(t, p) })
	}
}

func open(t *testing.T, protocol config.Protocol, scheme, address string, change func(*config.OTLP)) *Sink {
	t.Helper()
	o := &config.OTLP{Endpoint: &url.URL{Scheme: scheme, Host: address}, Protocol: protocol, Compression: config.CompressionGzip}
	if change != nil {
		change(o)
	}
	s, err := New(t.Context(), &config.Sink{Name: "x", OTLP: o, Timeout: time.Minute}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// A pki is an authority, and what it has signed: files of a server and of a client.
type pki struct {
	t   *testing.T
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	p := &pki{t: t, dir: t.TempDir()}
	p.ca, p.key = p.sign("ca", nil)
	return p
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

// sign writes name.pem and name-key.pem.
func (p *pki) sign(name string, form *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	parent, parentKey := p.ca, p.key
	if form == nil {
		form = &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		parent, parentKey = form, key
	}
	form.SerialNumber, form.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, form, parent, key.Public(), parentKey)
	if err != nil {
		p.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(p.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert, key
}
