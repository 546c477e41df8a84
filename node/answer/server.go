// SPDX-License-Identifier: Apache-2.0

// Package answer answers readers' questions about a node: its pods, their streams, and what the doctor finds.
//
// It only reads. It answers the cluster's controller and nobody else, which proves itself by its key: what a caller would have to hand
// over to prove itself, a node that was taken over could use at all others. Who may ask what is the controller's to decide; a question
// about one namespace is answered from what bears its name, and nothing else.
package answer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/places"
	"metsuke.dev/metsuke/node/doctor/report"
)

const (
	// maxReaders bounds how many questions are answered at a time, and maxOfNamespace how many about one namespace: what one
	// team asks does not keep others from asking.
	maxReaders     = 32
	maxOfNamespace = 8

	handshakeTime = 10 * time.Second // that a caller has to prove itself, and to ask
	askAgain      = 5 * time.Second  // between two times that the controllers' certificates are looked up
	answerTime    = 50 * time.Second // for what is no stream: the API server gives up after a minute
)

// Config is what a server is made from. Functions may be called concurrently.
type Config struct {
	Node string // the node's name in the cluster
	Root string // where its root directory is; empty: at /
	// Directories are those of the node's configuration.
	Directories func() (config.Directories, error)
	// Controllers returns the certificates by which controllers prove themselves. It is called when one comes that is not known.
	Controllers func(context.Context) (certificate.Bundle, error)
	// Doctor looks at the node, without a canary.
	Doctor func(context.Context) (*report.Report, error)
}

// Server answers questions. Its methods are safe for concurrent use.
type Server struct {
	Config
	certificate *tls.Certificate
	stall       time.Duration

	mu    sync.Mutex
	known certificate.Bundle
	asked time.Time

	places places.Places // by namespace; "" is all
	doctor sync.Mutex    // one examination at a time
}

// valid is how long an agent's certificate is: it is pinned, and made anew with each start.
const valid = 20 * 365 * 24 * time.Hour

// New returns a server with a key of its own.
func New(c Config) (*Server, error) {
	own, err := certificate.New(c.Node, time.Now(), valid)
	if err != nil {
		return nil, err
	}
	return &Server{Config: c, certificate: own, stall: stallTime, places: places.Places{Total: maxReaders, Each: maxOfNamespace}}, nil
}

// Digest is the digest of the server's certificate, as callers pin it.
func (s *Server) Digest() string { return certificate.Digest(s.certificate.Leaf.Raw) }

// Serve answers until ctx ends, and ends all answers then. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		TLSConfig:         s.tls(ctx),
		ReadHeaderTimeout: handshakeTime, // also of the handshake
		IdleTimeout:       handshakeTime,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          stdlog.New(io.Discard, "", 0), // about strangers
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ServeTLS(l, "", ""); ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *Server) tls(ctx context.Context) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*s.certificate},
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection says whose
		NextProtos:             []string{"http/1.1"},     // a connection for each question: none waits for another
		SessionTicketsDisabled: true,                     // each connection proves itself
		VerifyConnection: func(state tls.ConnectionState) error {
			ctx, cancel := context.WithTimeout(ctx, handshakeTime)
			defer cancel()
			return s.verify(ctx, state)
		},
	}
}

var errStranger = errors.New("the caller is not the controller")

// verify lets controllers in. For strangers the API server is asked now and then, not each time.
func (s *Server) verify(ctx context.Context, state tls.ConnectionState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	peer := state.PeerCertificates[0]
	if s.known.Has(peer, now) {
		return nil
	}
	if now.Sub(s.asked) < askAgain {
		return errStranger
	}
	known, err := s.Controllers(ctx)
	s.asked = time.Now()
	if err != nil {
		log.G(ctx).WithError(err).Warn("the controller's certificates are not known")
		return errStranger
	}
	if s.known = known; !s.known.Has(peer, now) {
		return errStranger
	}
	return nil
}

// ServeHTTP answers one question.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		question.Refuse(w, http.StatusMethodNotAllowed, "there is nothing here but to read")
		return
	}
	q, err := question.Parse(r.URL)
	switch {
	case errors.Is(err, question.ErrNoSuchThing):
		question.Refuse(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		question.Refuse(w, http.StatusBadRequest, err.Error())
		return
	case q.Node != s.Node: // an AgentNode can name the address of another node
		question.Refuse(w, http.StatusNotFound, "this is node "+s.Node)
		return
	}
	leave, ok := s.places.Enter(q.Namespace)
	if !ok {
		w.Header().Set("Retry-After", "1")
		question.Refuse(w, http.StatusTooManyRequests, "too many readers are at this node; wait, or end some that follow")
		return
	}
	defer leave()
	if q.About == question.Log {
		s.log(w, r, q)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	switch q.About {
	case question.Pods:
		s.list(ctx, w, q)
	case question.Pod:
		s.inspect(ctx, w, q)
	default:
		s.examine(ctx, w)
	}
}
