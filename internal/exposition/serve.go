// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the server: whoever can reach the pod can ask.
const (
	maxConnections = 64
	maxScrapes     = 4 // at a time
	patience       = 10 * time.Second
)

// Server shows a registry under /metrics, and under /healthz whether the program is alive.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen takes the TCP address, such as ":9464". Whoever asks /healthz gets what alive returns: 200 for nil, otherwise 503 with the error.
// alive must not block.
func Listen(address string, from prometheus.Gatherer, alive func() error) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, Timeout: patience / 2, EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := alive(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return &Server{l, &http.Server{
		Handler: mux, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: 6 * patience, MaxHeaderBytes: 8 << 10,
		ConnState: new(newest).changed,
	}}, nil
}

// newest keeps the newest connections, and closes the oldest when there are too many: whoever holds many, or sends slowly, keeps nobody
// out. The kubelet above all, which takes a program for dead that it cannot ask.
type newest struct {
	mu   sync.Mutex
	open []net.Conn // guarded by mu; the oldest first
}

// changed is the server's ConnState.
func (n *newest) changed(c net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch state {
	case http.StateNew:
		if n.open = append(n.open, c); len(n.open) > maxConnections {
			_ = n.open[0].Close()
			n.open = slices.Delete(n.open, 0, 1)
		}
	case http.StateClosed:
		n.open = slices.DeleteFunc(n.open, func(o net.Conn) bool { return o == c })
	}
}

// Address is where it listens.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends; the error is nil then.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
