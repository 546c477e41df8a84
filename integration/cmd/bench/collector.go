// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
)

// collectorSink is a sink that is a collector of OpenTelemetry.
func collectorSink(at net.Addr, compression string) func(dir string) string {
	return func(string) string {
		return fmt.Sprintf("type = \"otlp\"\n[sinks.otlp]\nendpoint = \"http://%s\"\nprotocol = \"http/protobuf\"\ncompression = %q\n", at, compression)
	}
}

// collector takes logs by OTLP over HTTP (its specification: OTLP/HTTP, binary protobuf), and counts records.
type collector struct{ records atomic.Uint64 }

// taken is how many records came since it was asked last.
func (c *collector) taken(*shipper) (uint64, error) { return c.records.Swap(0), nil }

// ServeHTTP implements http.Handler. The answer has no field: all was taken.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, err := received(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.records.Add(n)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func received(r *http.Request) (uint64, error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return 0, err
		}
		body = unzipped
	}
	message, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	const resourceLogs, scopeLogs, logRecords = 1, 2, 2 // numbers of fields, logs/v1/logs.proto
	return count(message, resourceLogs, scopeLogs, logRecords)
}

// numbered is what the line of a record has, and that of a statement has not.
var numbered = []byte(`Z","seq":`)

// count is how many records a message has in a field, or in that of the messages that it has in a field, and so on.
func count(message []byte, path ...protowire.Number) (n uint64, err error) {
	if len(path) == 0 {
		if bytes.Contains(message, numbered) {
			n = 1
		}
		return n, nil
	}
	for len(message) > 0 {
		number, kind, length := protowire.ConsumeField(message)
		if length < 0 {
			return 0, protowire.ParseError(length)
		}
		if number == path[0] && kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(message)
			inner, _ := protowire.ConsumeBytes(message[tag:])
			below, err := count(inner, path[1:]...)
			if err != nil {
				return 0, err
			}
			n += below
		}
		message = message[length:]
	}
	return n, nil
}
