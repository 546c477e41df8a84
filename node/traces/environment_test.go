// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// clearEnv takes away what the environment of the test says of OpenTelemetry, until it ends.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, value) // which restores it
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Without a word nothing runs; what cannot be meant is refused, and what is secret is not repeated.
func TestEnvironment(t *testing.T) {
	const secret = "c0ffee-c0ffee"
	for _, test := range []struct {
		name string
		env  map[string]string
		on   bool
		err  string // part of the error; empty: none
	}{
		{"nothing", nil, false, ""},
		{"none", map[string]string{envExporter: "none", envProtocol: "x", envHeaders: secret}, false, ""},
		{"otlp", map[string]string{envExporter: " otlp "}, true, ""},
		{"disabled", map[string]string{envExporter: "otlp", envDisabled: "TRUE"}, false, ""},
		{"another exporter", map[string]string{envExporter: "otlp,console"}, false, envExporter},
		{"grpc", map[string]string{envExporter: "otlp", envProtocol: "grpc", envEndpoint: "http://c:4317"}, true, ""},
		{"grpc for traces", map[string]string{envExporter: "otlp", envProtocol: "x", envTracesProtocol: "grpc"}, true, ""},
		{"another protocol", map[string]string{envExporter: "otlp", envProtocol: "http/json"}, false, `"http/json"`},
		{"headers", map[string]string{envExporter: "otlp", envHeaders: "authorization=Bearer%20" + secret + ", x=1\n"}, true, ""},
		{"headers without a name", map[string]string{envExporter: "otlp", envHeaders: "a=b," + secret}, false, envHeaders + ": entry 2"},
		{"headers of two lines", map[string]string{envExporter: "otlp", envTracesHeaders: "a b=" + secret}, false, envTracesHeaders + ": entry 1"},
		{"headers with a percent", map[string]string{envExporter: "otlp", envHeaders: "a=100%-" + secret}, false, envHeaders},
		{"endpoint without a scheme", map[string]string{envExporter: "otlp", envEndpoint: "collector:4318"}, false, envEndpoint},
		{"endpoint without a host", map[string]string{envExporter: "otlp", envTracesEndpoint: "http:///v1"}, false, envTracesEndpoint},
		{"endpoint with a password", map[string]string{envExporter: "otlp", envEndpoint: "ftp://u:" + secret + "@c"}, false, envEndpoint},
		{"attributes", map[string]string{envExporter: "otlp", "OTEL_RESOURCE_ATTRIBUTES": "x"}, false, "OTEL_RESOURCE_ATTRIBUTES"},
	} {
		t.Run(test.name, func(t *testing.T) {
			clearEnv(t)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			got, err := New(t.Context(), Config{})
			if got != nil {
				got.Close()
			}
			if (got != nil) != test.on || (err != nil) != (test.err != "") {
				t.Fatalf("%v, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), secret)) {
				t.Error(err)
			}
		})
	}
}

// Collectors repeat what they were sent; the log does not.
func TestComplaintsAreClean(t *testing.T) {
	clearEnv(t)
	t.Setenv(envHeaders, "authorization=Bearer%20c0ffee%2Cc0ffee,x-tenant=1")
	secrets, err := headers()
	if err != nil {
		t.Fatal(err)
	}
	c := &complaints{secrets: secrets}
	text := errors.New("401 (Bearer c0ffee,c0ffee and Bearer%20c0ffee%2Cc0ffee are not known: c0ffee,c0ffee 1) \xff" + strings.Repeat("x", maxComplain))
	if got, want := c.clean(text.Error()), "401 (… and … are not known: … 1) "; !strings.HasPrefix(got, want) || len(got) > maxComplain {
		t.Errorf("%q", got)
	}
}
