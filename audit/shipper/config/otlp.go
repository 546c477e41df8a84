// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/url"

	"metsuke.dev/metsuke/internal/tomlfile"
)

// OTLP is a collector of OpenTelemetry, or whoever else speaks its protocol.
type OTLP struct {
	// Endpoint is a URL, http://HOST:PORT or https://HOST:PORT. For ProtocolHTTP it may have a path; without one it is /v1/logs.
	Endpoint    *url.URL
	Protocol    Protocol
	Compression Compression
	Headers     string // file of headers that are sent along, a line NAME: VALUE each; empty: none
	TLS         *TLS   // nil: with https, the system's authorities and no certificate of ours
}

// Protocol is how OTLP is spoken, in the words of OpenTelemetry's own variables.
type Protocol string

// The protocols.
const (
	ProtocolGRPC Protocol = "grpc"
	ProtocolHTTP Protocol = "http/protobuf"
)

// Compression is how what is sent is compressed.
type Compression string

// The kinds of compression.
const (
	CompressionNone Compression = "none"
	CompressionGzip Compression = "gzip"
)

func defaultOTLP() *OTLP { return &OTLP{Protocol: ProtocolGRPC, Compression: CompressionGzip} }

var otlpFields = append([]tomlfile.Field[*Sink]{
	{Path: "endpoint", Hide: true, Set: func(s *Sink, v any) string { return endpoint(&s.OTLP.Endpoint, v) }},
	{Path: "protocol", Set: func(s *Sink, v any) string { return tomlfile.Word(&s.OTLP.Protocol, v, ProtocolGRPC, ProtocolHTTP) }},
	{Path: "compression", Set: func(s *Sink, v any) string {
		return tomlfile.Word(&s.OTLP.Compression, v, CompressionNone, CompressionGzip)
	}},
	{Path: "headers", Set: func(s *Sink, v any) string { return tomlfile.Path(&s.OTLP.Headers, v) }},
}, tlsFields(func(s *Sink) **TLS { return &s.OTLP.TLS })...)

var otlpRequired = []required{{"endpoint", "the collector's URL, such as \"https://collector.example:4317\""}}

// endpoint takes a URL that has no credentials in it: they would be in messages.
func endpoint(to **url.URL, v any) string {
	s, _ := v.(string)
	u, err := url.Parse(s)
	if err != nil || len(s) > maxText || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "a URL of the form http://HOST:PORT or https://HOST:PORT, without a user"
	}
	*to = u
	return ""
}

func checkOTLP(f *tomlfile.File, s *Sink, at string) {
	o := s.OTLP
	checkTLS(f, o.TLS, at)
	switch {
	case o.Endpoint == nil: // said already
	case o.Endpoint.Scheme == "http" && o.TLS != nil:
		f.Errorf(at+".tls", "is for an endpoint that is http", "expected https://…, or no tls")
	case o.Endpoint.Scheme == "http" && o.Headers != "" && !Loopback(o.Endpoint.Hostname()):
		f.Errorf(at+".headers", "would be sent in clear text", "expected an endpoint https://…, or one on this machine")
	case o.Protocol == ProtocolGRPC && o.Endpoint.Path != "" && o.Endpoint.Path != "/":
		f.Errorf(at+".endpoint", "has a path, and gRPC knows none", "expected https://HOST:PORT")
	}
}

// Loopback tells whether a host is this machine, so that secrets may be sent to it in clear text.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
