// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"
)

// The variables that are read or checked here. Time limits, certificates and what concerns the queue and sampling are the SDK's to read
// (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables).
const (
	envExporter       = "OTEL_TRACES_EXPORTER"
	envDisabled       = "OTEL_SDK_DISABLED"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envHeaders        = "OTEL_EXPORTER_OTLP_HEADERS"
	envTracesHeaders  = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
)

// The exporter and the protocols that there are.
const (
	exporterOTLP = "otlp"
	exporterNone = "none"
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

func env(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// wanted tells whether the environment asks for traces. Unlike in the specification, none is what counts if it says nothing.
func wanted() (bool, error) {
	if strings.EqualFold(env(envDisabled), "true") {
		return false, nil
	}
	switch name := cmp.Or(env(envExporter), exporterNone); name {
	case exporterNone:
		return false, nil
	case exporterOTLP:
		return true, nil
	default:
		return false, fmt.Errorf("%s: there is no exporter %q: use %s or %s", envExporter, name, exporterOTLP, exporterNone)
	}
}

// newExporter returns what sends spans by the protocol that the environment names. It does not connect.
func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	switch name := cmp.Or(env(envTracesProtocol), env(envProtocol), protocolHTTP); name {
	case protocolHTTP:
		return otlptracehttp.New(ctx)
	case protocolGRPC:
		return otlptracegrpc.New(ctx)
	default:
		return nil, fmt.Errorf("%s: there is no protocol %q: use %s or %s", envProtocol, name, protocolHTTP, protocolGRPC)
	}
}

// checkEndpoints refuses what the SDK would pass over, to send to localhost. What it says has no endpoint in it, which may have a password.
func checkEndpoints() error {
	for _, variable := range []string{envEndpoint, envTracesEndpoint} {
		text := env(variable)
		if text == "" {
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%s is no URL of the form http://HOST:PORT or https://HOST:PORT", variable)
		}
	}
	return nil
}

// minSecret is how long what a header says must be to be taken for a secret, in bytes.
const minSecret = 6

// headers checks the headers that go to the collector, which the SDK would pass over where it cannot read them, and returns what in
// them may be secret: their values, and the words of these. Errors have none of it.
func headers() (secrets []string, err error) {
	for _, variable := range []string{envHeaders, envTracesHeaders} {
		text := env(variable)
		if text == "" {
			continue
		}
		for i, pair := range strings.Split(text, ",") {
			name, raw, ok := strings.Cut(pair, "=")
			value, err := url.PathUnescape(raw)
			if !ok || err != nil || !httpguts.ValidHeaderFieldName(strings.TrimSpace(name)) {
				return nil, fmt.Errorf("%s: entry %d is not NAME=VALUE, with a value in which ',' and '%%' are written %%2C and %%25", variable, i+1)
			}
			for _, word := range append(strings.Fields(value), strings.TrimSpace(value), strings.TrimSpace(raw)) {
				if len(word) >= minSecret {
					secrets = append(secrets, word)
				}
			}
		}
	}
	return secrets, nil
}
