// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// dialTime is how long an agent has to take a connection.
const dialTime = 5 * time.Second

// passed are the codes of an agent's answers that are passed on. Anything else is no answer.
var passed = []int{
	http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests,
	http.StatusInternalServerError, http.StatusServiceUnavailable,
}

var errNoAnswer = errors.New("its answer is none of the API's")

// forward has the agent answer. Each question has a connection of its own, so a node that holds one up holds up no other. It panics with
// http.ErrAbortHandler when an answer that has begun ends too early.
func (d *Door) forward(ctx context.Context, w http.ResponseWriter, q *question.Question, at *v1alpha1.Endpoint, own *tls.Certificate) {
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout:    dialTime,
		ResponseHeaderTimeout:  d.answer,
		MaxResponseHeaderBytes: 16 << 10,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			Certificates:       []tls.Certificate{*own},
			InsecureSkipVerify: true, //nolint:gosec // it is pinned, which is stricter
			VerifyConnection:   certificate.Pinned(at.Certificate),
		},
	}
	defer transport.CloseIdleConnections()
	target := &url.URL{Scheme: "https", Host: at.Address}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) { // nothing of the caller's request, but the question
			u := target.ResolveReference(q.URL())
			r.Out = (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"Accept-Encoding": {"identity"}}}).WithContext(ctx)
		},
		ModifyResponse: func(r *http.Response) error {
			if !slices.Contains(passed, r.StatusCode) {
				return errNoAnswer
			}
			// A node that was taken over may answer anything: it is data, to whatever program.
			kind := "application/json"
			if q.About == question.Log && r.StatusCode == http.StatusOK {
				kind = question.Records
			}
			r.Header = http.Header{"Content-Type": {kind}, "X-Content-Type-Options": {"nosniff"}, "Cache-Control": {"no-store"}}
			r.Trailer = nil
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if ctx.Err() == nil {
				log.G(ctx).WithError(err).WithField("node", q.Node).WithField("address", at.Address).Warn("an agent does not answer")
			}
			question.Refuse(w, http.StatusServiceUnavailable, "the agent of node "+q.Node+" does not answer as it should; the controller's log says why")
		},
		FlushInterval: -1,
		ErrorLog:      stdlog.New(io.Discard, "", 0),
	}
	proxy.ServeHTTP(w, (&http.Request{Method: http.MethodGet, URL: q.URL(), Header: http.Header{}}).WithContext(ctx))
	if ctx.Err() != nil { // an agent that hears of it first can still end its answer in order
		panic(http.ErrAbortHandler)
	}
}
