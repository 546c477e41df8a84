// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/goldentest"
)

const example = "../../../docs/ship.example.toml"

func parseURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What the example shows as defaults are the defaults.
func TestExample(t *testing.T) {
	got, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	otlp, file := defaultSink(), defaultSink()
	otlp.Name, otlp.Type, otlp.OTLP = "collector", TypeOTLP, defaultOTLP()
	otlp.OTLP.Endpoint = parseURL(t, "https://collector.example:4317")
	file.Name, file.Type, file.File = "local", TypeFile, defaultFile()
	file.File.Path = "/var/log/metsuke/shipped.ndjson"
	for _, s := range got.Sinks { // those whose table is not in the example yet are checked by their own tests
		if s.Type == TypeOTLP || s.Type == TypeFile {
			want.Sinks = append(want.Sinks, map[Type]Sink{TypeOTLP: otlp, TypeFile: file}[s.Type])
		} else {
			want.Sinks = append(want.Sinks, s)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every field must be in the example, and what the example has in comments must be right as well.
func TestExampleIsWhole(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range fields {
		paths = append(paths, f.Path)
	}
	for _, f := range sinkFields {
		paths = append(paths, f.Path)
	}
	for _, k := range kinds {
		for _, f := range k.fields {
			paths = append(paths, f.Path)
		}
	}
	for _, path := range paths {
		name := path[strings.LastIndex(path, ".")+1:]
		if path != "sinks" && !regexp.MustCompile(`(?m)^(# )?`+name+` = `).Match(data) {
			t.Errorf("%s is not in the example", path)
		}
	}
	if _, err := Parse("c.toml", regexp.MustCompile(`(?m)^# ([a-z_]+ = )`).ReplaceAll(data, []byte("$1"))); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	got, err := Parse("c.toml", []byte(`
version = 1
directories.audit = "/a"
directories.checkpoints = "/c"
[[sinks]]
name = "lake"
type = "otlp"
form = "ocsf"
timeout = "1m30s"
batch = { records = 7, bytes = "64Ki" }
[sinks.otlp]
endpoint = "https://[::1]:4318/logs"
protocol = "http/protobuf"
compression = "none"
headers = "/h"
tls = { ca = "/ca", cert = "/cert", key = "/key", server_name = "x" }
[[sinks]]
name = "out"
type = "stdout"
[[sinks]]
name = "file"
type = "file"
file = { path = "/f", max_size = "2Gi", keep = 0 }
`))
	if err != nil {
		t.Fatal(err)
	}
	plain := Sink{Form: FormJSON, Batch: Batch{1000, 1 << 20}, Timeout: 30 * time.Second}
	out, file := plain, plain
	lake := Sink{Name: "lake", Type: TypeOTLP, Form: FormOCSF, Batch: Batch{7, 64 << 10}, Timeout: 90 * time.Second, OTLP: &OTLP{
		Endpoint: parseURL(t, "https://[::1]:4318/logs"), Protocol: ProtocolHTTP, Compression: CompressionNone, Headers: "/h",
		TLS: &TLS{CA: "/ca", Cert: "/cert", Key: "/key", ServerName: "x"},
	}}
	out.Name, out.Type = "out", TypeStdout
	file.Name, file.Type, file.File = "file", TypeFile, &File{Path: "/f", MaxSize: 2 << 30}
	want := &Config{Audit: "/a", Checkpoints: "/c", Sinks: []Sink{lake, out, file}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The bad files of testdata/bad and exactly what is said of them.
func TestBadFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("c.toml", data)
			if err == nil {
				t.Fatal("was taken")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the message has a secret")
			}
			goldentest.Equal(t, strings.TrimSuffix(file, ".toml")+".err", err.Error()+"\n")
			if len(diagnostic.All(err)) == 0 {
				t.Error("is no diagnostic")
			}
		})
	}
}

func TestAbsentIsNotInvalid(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, ErrAbsent) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Load(dir); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("a directory: %v", err)
	}
}

func TestParseKafkaAndNATS(t *testing.T) {
	got, err := Parse("c.toml", []byte(`
version = 1
[[sinks]]
name = "lake"
type = "kafka"
kafka = { brokers = ["a:1", "[::1]:2"], topic = "t", sasl = { mechanism = "PLAIN", user = "u", password = "/p" }, tls = { ca = "/ca" } }
[[sinks]]
name = "bus"
type = "nats"
nats = { servers = ["tls://a:1", "tls://b"], subject = "a.b", stream = "S", auth = "password", secret = "/s", user = "u", tls = { cert = "/c", key = "/k" } }
`))
	if err != nil {
		t.Fatal(err)
	}
	lake, bus := defaultSink(), defaultSink()
	lake.Name, lake.Type, lake.Kafka = "lake", TypeKafka, &Kafka{
		Brokers: []string{"a:1", "[::1]:2"}, Topic: "t", Transport: TransportTLS, TLS: &TLS{CA: "/ca"}, SASL: &SASL{MechanismPlain, "u", "/p"},
	}
	bus.Name, bus.Type, bus.NATS = "bus", TypeNATS, &NATS{
		Servers: []string{"tls://a:1", "tls://b"}, Subject: "a.b", Stream: "S", Auth: AuthPassword, Secret: "/s", User: "u", TLS: &TLS{Cert: "/c", Key: "/k"},
	}
	want := Default()
	want.Sinks = []Sink{lake, bus}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.toml", example} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, _ := os.ReadFile(file)
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("c.toml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			return
		}
		for _, s := range c.Sinks {
			if !checkpoint.ValidName(s.Name) || !slices.Contains(types(), s.Type) || s.Batch.Records < 1 || s.Batch.Bytes < 1 {
				t.Fatalf("taken: %+v", s)
			}
		}
	})
}
