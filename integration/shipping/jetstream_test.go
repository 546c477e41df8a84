// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	natssink "metsuke.dev/metsuke/audit/sink/nats"
)

const natsConfig = `
listen: "{LISTEN}"
jetstream { store_dir: "{STORE}" }
{AUTH}
`

// Where the tests ship to.
const (
	subject  = "metsuke.audit"
	jsStream = "AUDIT"
)

// natsServer is a NATS server with JetStream. To the shipper it is at the address of a proxy, to the test at its own.
type natsServer struct {
	dir, config string
	address     string
	proxy       *proxy
	options     []nats.Option // of the test's own connection
	process     *process
}

// startNATS starts a server that lets in whom auth, a part of its configuration, says, and the test with the options.
func startNATS(t *testing.T, auth string, options ...nats.Option) *natsServer {
	t.Helper()
	s := &natsServer{dir: t.TempDir(), address: address(t), options: options}
	s.proxy = newProxy(t, s.address)
	s.config = write(t, s.dir, "server.conf", fill(natsConfig, "LISTEN", s.address, "STORE", filepath.Join(s.dir, "store"), "AUTH", auth))
	s.start(t)
	return s
}

// start starts the server, on what it stored before.
func (s *natsServer) start(t *testing.T) {
	t.Helper()
	s.process = start(t, s.dir, filepath.Join(tool("nats"), "nats-server"), "-c", s.config)
	s.process.serving(t, s.address)
}

// connect is a connection of the test's.
func (s *natsServer) connect(t *testing.T) (jetstream.JetStream, func()) {
	t.Helper()
	var conn *nats.Conn
	until(t, "the server lets the test in", func() (ok bool) {
		var err error
		conn, err = nats.Connect("nats://"+s.address, s.options...)
		return err == nil
	})
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js, conn.Close
}

// setStream makes the stream, or changes how much it takes: so many bytes, then no more; -1: any number.
func (s *natsServer) setStream(t *testing.T, maxBytes int64) {
	t.Helper()
	js, end := s.connect(t)
	defer end()
	until(t, "the stream is made", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: jsStream, Subjects: []string{subject}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxBytes: maxBytes,
			Duplicates: 10 * time.Minute, MaxMsgSize: 256 << 10,
		})
		return err == nil
	})
}

// state is what the stream has.
func (s *natsServer) state(t *testing.T) jetstream.StreamState {
	t.Helper()
	js, end := s.connect(t)
	defer end()
	var state jetstream.StreamState
	until(t, "the stream tells what it has", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := js.Stream(ctx, jsStream)
		if err != nil {
			return false
		}
		state = stream.CachedInfo().State
		return true
	})
	return state
}

// count is how many messages the stream has.
func (s *natsServer) count(t *testing.T) int64 {
	t.Helper()
	return int64(s.state(t).Msgs)
}

// arrivals reads the whole stream.
func (s *natsServer) arrivals(t *testing.T) (all []arrival) {
	t.Helper()
	n := s.state(t).Msgs
	js, end := s.connect(t)
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	consumer, err := js.OrderedConsumer(ctx, jsStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for uint64(len(all)) < n && ctx.Err() == nil {
		batch, err := consumer.Fetch(1000, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			all = append(all, arrival{id: m.Headers().Get(jetstream.MsgIDHeader), kind: m.Headers().Get(natssink.HeaderKind), line: m.Data()})
		}
	}
	return all
}
