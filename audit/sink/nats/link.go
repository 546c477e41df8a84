// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

// handshake bounds what a server takes to let a client in, when nothing else does.
const handshake = 20 * time.Second

// link is one connection to one server. It does not come back when it has ended: another one does.
type link struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	closed chan struct{}
	shown  []string // what the server is shown, and must not be repeated

	mu     sync.Mutex
	raw    net.Conn // guarded by mu, as below
	isCut  bool
	reason error // what the server has said before it closed, or instead of an answer
}

// dial connects to one of the servers.
func dial(ctx context.Context, c *config.NATS) (*link, error) {
	l := &link{closed: make(chan struct{})}
	o, err := l.options(c)
	if err != nil {
		return nil, err
	}
	o = append(o,
		nats.SetCustomDialer(dialer{ctx, l}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.say(err)
			l.cut() // such as a permission that is wanting: there will be no answer
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
	)
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	if l.conn, err = nats.Connect(strings.Join(c.Servers, ","), o...); err != nil {
		l.cut()
		return nil, credentials.Hide(err, l.shown)
	}
	if l.js, err = jetstream.New(l.conn, jetstream.WithPublishAsyncMaxPending(window)); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// options are those of a connection. The files are read now.
func (l *link) options(c *config.NATS) ([]nats.Option, error) {
	o := []nats.Option{nats.Name("metsuke"), nats.NoReconnect(), nats.Timeout(handshake)}
	if strings.HasPrefix(c.Servers[0], "tls:") {
		secured, err := credentials.TLS(c.TLS, "") // the library fills in which server it is
		if err != nil {
			return nil, err
		}
		o = append(o, nats.Secure(secured))
	}
	if c.Auth == "" {
		return o, nil
	}
	secret, err := credentials.Secret(c.Secret)
	if err != nil {
		return nil, err
	}
	l.shown = []string{secret}
	switch c.Auth {
	case config.AuthCreds:
		return append(o, nats.UserCredentialBytes([]byte(secret))), nil
	case config.AuthToken:
		return append(o, nats.Token(secret)), nil
	case config.AuthPassword:
		return append(o, nats.UserInfo(c.User, secret)), nil
	case config.AuthNKey:
		pair, err := nkeys.FromSeed([]byte(secret))
		if err != nil {
			return nil, fmt.Errorf("%s is not the seed of an nkey", c.Secret)
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Secret, err)
		}
		return append(o, nats.Nkey(public, pair.Sign)), nil
	default:
		return nil, fmt.Errorf("there is no auth %q", c.Auth)
	}
}

// dialer makes a link's connection, so that it can be cut: the library's own end waits for writes.
type dialer struct {
	ctx  context.Context
	link *link
}

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	raw, err := (&net.Dialer{Timeout: handshake}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.link.mu.Lock()
	defer d.link.mu.Unlock()
	if d.link.raw = raw; d.link.isCut {
		_ = raw.Close()
	}
	return raw, nil
}

// cut ends the connection at once.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	if l.raw != nil {
		_ = l.raw.Close() // it may have ended
	}
}

func (l *link) say(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason == nil {
		l.reason = err
	}
}

// trouble is what the server has said, or nil.
func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

func (l *link) close() {
	l.cut()
	l.conn.Close()
}
