// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"crypto/tls"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/log"
)

const (
	headerTime = 10 * time.Second
	tryAgain   = 5 * time.Second
)

// Serve answers at an address until ctx ends, and ends all answers then. It listens once the cluster knows the door's certificate, so who
// reaches it is served; while that fails it says why, and tries again. The error is about the address.
func (d *Door) Serve(ctx context.Context, address string) error {
	if !d.introduce(ctx) {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return d.serve(ctx, l)
}

// introduce makes the door known; false: ctx ended.
func (d *Door) introduce(ctx context.Context) bool {
	for {
		err := d.refresh(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("readers cannot be served; trying again")
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(tryAgain):
		}
	}
}

func (d *Door) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: d,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12, // as the API server's own
			ClientAuth:     tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.keys.now().own, nil },
		},
		ReadHeaderTimeout: headerTime,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          stdlog.New(io.Discard, "", 0), // about strangers
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { d.keep(ctx) })
	running.Go(func() {
		<-ctx.Done()
		_ = server.Close()
	})
	log.G(ctx).WithField("address", l.Addr().String()).Info("readers are served")
	if err := server.ServeTLS(l, "", ""); ctx.Err() == nil {
		return err
	}
	return nil
}
