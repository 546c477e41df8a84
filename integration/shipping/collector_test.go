// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What is accepted goes into a queue on disk, which is soon full, and from there into a file.
const collectorConfig = `
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "{GRPC}", tls: {cert_file: "{CERT}", key_file: "{KEY}", client_ca_file: "{CA}"}}
      http: {endpoint: "{HTTP}", tls: {cert_file: "{CERT}", key_file: "{KEY}"}, auth: {authenticator: bearertokenauth}}
exporters:
  append:
    path: "{FILE}"
    sending_queue: {storage: file_storage, queue_size: 5, num_consumers: 1}
    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms, max_elapsed_time: 0}
extensions:
  file_storage: {directory: "{QUEUE}", fsync: true}
  bearertokenauth: {token: "{TOKEN}"}
service:
  telemetry: {metrics: {level: none}, logs: {level: warn}}
  extensions: [file_storage, bearertokenauth]
  pipelines:
    logs: {receivers: [otlp], exporters: [append]}
`

// token is what lets in by HTTP.
const token = "s3cr3t-t0k3n"

// collector is an OpenTelemetry collector. To the shipper it is at the addresses of the proxies: by gRPC with a client's certificate, by HTTP with
// a bearer token.
type collector struct {
	dir, config      string
	file             string // what came through
	grpc, http       *proxy
	grpcOwn, httpOwn string
	authority        *authority
	process          *process
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{dir: t.TempDir(), authority: newAuthority(t), grpcOwn: address(t), httpOwn: address(t)}
	c.grpc, c.http = newProxy(t, c.grpcOwn), newProxy(t, c.httpOwn)
	c.file = write(t, c.dir, "logs.ndjson", "")
	queue := filepath.Join(c.dir, "queue")
	if err := os.Mkdir(queue, 0o700); err != nil {
		t.Fatal(err)
	}
	a := c.authority
	c.config = write(t, c.dir, "config.yaml", fill(collectorConfig, "GRPC", c.grpcOwn, "HTTP", c.httpOwn, "CERT", a.file("server"), "KEY", a.file("server-key"),
		"CA", a.file("ca"), "FILE", c.file, "QUEUE", queue, "TOKEN", token))
	c.start(t)
	return c
}

// start starts the collector, on what it has in its queue.
func (c *collector) start(t *testing.T) {
	t.Helper()
	c.process = start(t, c.dir, filepath.Join(tool("collector"), "collector"), "--config", c.config)
	c.process.serving(t, c.grpcOwn)
	c.process.serving(t, c.httpOwn)
}

const away = ".away"

// takeAway has what is behind the collector be away, so that its queue fills, until putBack.
func (c *collector) takeAway(t *testing.T) {
	t.Helper()
	if err := os.Rename(c.file, c.file+away); err != nil {
		t.Fatal(err)
	}
}

func (c *collector) putBack(t *testing.T) {
	t.Helper()
	if err := os.Rename(c.file+away, c.file); err != nil {
		t.Fatal(err)
	}
}

// count is how many log records came through.
func (c *collector) count(t *testing.T) int64 {
	t.Helper()
	return int64(bytes.Count(c.received(t), []byte(`"`+attributeID+`"`)))
}

// Names of attributes of a log record.
const (
	attributeID   = "log.record.uid"
	attributeKind = "metsuke.kind"
)

// arrivals are the log records that came through.
func (c *collector) arrivals(t *testing.T) (all []arrival) {
	t.Helper()
	type text struct{ StringValue string }
	for line := range bytes.Lines(c.received(t)) {
		var request struct {
			ResourceLogs []struct {
				ScopeLogs []struct {
					LogRecords []struct {
						Body       text
						Attributes []struct {
							Key   string
							Value text
						}
					}
				}
			}
		}
		if err := json.Unmarshal(line, &request); err != nil {
			t.Fatal(err)
		}
		for _, resource := range request.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, record := range scope.LogRecords {
					a := arrival{line: []byte(record.Body.StringValue)}
					for _, attribute := range record.Attributes {
						switch attribute.Key {
						case attributeID:
							a.id = attribute.Value.StringValue
						case attributeKind:
							a.kind = attribute.Value.StringValue
						}
					}
					all = append(all, a)
				}
			}
		}
	}
	return all
}

// received is what the collector has written, without a line that it is writing.
func (c *collector) received(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(c.file + away)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data[:bytes.LastIndexByte(data, '\n')+1]
}
