// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestFamilies(t *testing.T) {
	r := New("v1")
	c := r.Counter("c_total", "Counts.", "a", "b")
	c.Add(2, "x", "y")
	c.Foresee("x", "y")
	c.Foresee("x", "z")
	c.Add(1, "bad \xff", strings.Repeat("n", MaxLabel+1))
	g := r.Gauge("g", "Is.", "a")
	g.Replace(Sample{7, []string{"gone"}})
	g.Replace(Sample{1, []string{"x"}}, Sample{2, []string{"x"}})
	h := r.Histogram("h_seconds", "Takes.", []float64{1, 2})
	h.Add(3, 7, []uint64{1, 1})
	h.Observe(1)
	h.Observe(3)
	want := `# HELP c_total Counts.
# TYPE c_total counter
c_total{a="bad ",b="` + strings.Repeat("n", MaxLabel) + `"} 1
c_total{a="x",b="y"} 2
c_total{a="x",b="z"} 0
# HELP g Is.
# TYPE g gauge
g{a="x"} 3
# HELP h_seconds Takes.
# TYPE h_seconds histogram
h_seconds_bucket{le="1"} 2
h_seconds_bucket{le="2"} 3
h_seconds_bucket{le="+Inf"} 5
h_seconds_sum 11
h_seconds_count 5
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "c_total", "g", "h_seconds"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(r, "c_total", "h_seconds", "metsuke_build_info"); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// Names that somebody makes up end in one series, which counts all of them.
func TestSeriesAreBounded(t *testing.T) {
	r := New("v1")
	c := r.Counter("c_total", "Counts.", "a")
	for i := range MaxSeries {
		c.Foresee(fmt.Sprint("f", i))
	}
	if n := testutil.CollectAndCount(c); n != MaxSeries/2 {
		t.Errorf("%d series are foreseen", n)
	}
	for i := range MaxSeries/2 + 100 {
		c.Add(1, fmt.Sprint(i))
	}
	c.Add(5, "0")
	if n := testutil.CollectAndCount(c); n != MaxSeries+1 {
		t.Errorf("%d series", n)
	}
	if n := c.at([]string{Other}).value; n != 100 {
		t.Errorf("%f others", n)
	}
	if n := c.at([]string{"0"}).value; n != 6 {
		t.Errorf("the first has %f", n)
	}
}

func listen(t *testing.T, alive func() error) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", New("v1"), alive)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run serves until the test ends, or stop is called.
func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("it did not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// ask returns the status and the body of an answer.
func ask(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	resp, err := (&http.Client{Timeout: time.Minute}).Get("http://" + s.Address().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	var fault atomic.Pointer[error]
	s := listen(t, func() error {
		if err := fault.Load(); err != nil {
			return *err
		}
		return nil
	})
	stop := run(t, s)
	if _, err := Listen(s.Address().String(), New("v1"), nil); err == nil {
		t.Error("an address was taken twice")
	}
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/metrics":      {http.StatusOK, `metsuke_build_info{version="v1"} 1`},
		"/healthz":      {http.StatusOK, "ok\n"},
		"/debug/pprof/": {http.StatusNotFound, ""},
		"/":             {http.StatusNotFound, ""},
	} {
		if code, body := ask(t, s, path); code != want.code || !strings.Contains(body, want.body) {
			t.Errorf("%s: %d, %q", path, code, body)
		}
	}
	if resp, err := http.Post("http://"+s.Address().String()+"/metrics", "", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	stuck := errors.New("stuck for 6m0s")
	fault.Store(&stuck)
	if code, body := ask(t, s, "/healthz"); code != http.StatusServiceUnavailable || body != "stuck for 6m0s\n" {
		t.Errorf("of a program that is stuck: %d, %q", code, body)
	}
	if code, _ := ask(t, s, "/metrics"); code != http.StatusOK {
		t.Errorf("metrics of a program that is stuck: %d", code)
	}
	// A client that says nothing does not hold up the end.
	silent, err := net.Dial("tcp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stop()
}

// Whoever holds connections, however many, and sends as slowly as it likes, keeps nobody from asking, and what is held is bounded.
func TestFullHouse(t *testing.T) {
	s := listen(t, func() error { return nil })
	s.http.ReadTimeout = time.Hour // which would end them too
	run(t, s)
	var held []net.Conn
	for range 3 * maxConnections {
		c, err := net.Dial("tcp", s.Address().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHo"); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if code, body := ask(t, s, "/healthz"); code != http.StatusOK {
		t.Errorf("with a full house: %d, %q", code, body)
	}
	for i, c := range held[:2*maxConnections] {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		var timeout net.Error
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("connection %d was not closed: %d, %v", i, n, err)
		}
	}
}

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPulse(time.Minute)
		time.Sleep(time.Hour)
		if err := p.Check(); err != nil {
			t.Errorf("before it began: %v", err)
		}
		for range 3 {
			p.Beat()
			time.Sleep(time.Minute)
			if err := p.Check(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		if err := p.Check(); err == nil || err.Error() != "stuck for 1m1s" {
			t.Error(err)
		}
		p.Beat()
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	})
}
