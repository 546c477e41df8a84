// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Bounds of the server: whoever can reach the pod can ask.
const (
	maxConnections = 16
	maxScrapes     = 4 // at a time
	patience       = 10 * time.Second
)

// Server shows a registry under /metrics, and under /healthz that the program runs.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen takes the TCP address, such as ":9464".
func Listen(address string, from prometheus.Gatherer) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, Timeout: patience / 2, EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	return &Server{netutil.LimitListener(l, maxConnections), &http.Server{
		Handler: mux, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: 6 * patience, MaxHeaderBytes: 8 << 10,
	}}, nil
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
