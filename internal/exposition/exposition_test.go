// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
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

func TestServer(t *testing.T) {
	s, err := Listen("127.0.0.1:0", New("v1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Address().String(), New("v1")); err == nil {
		t.Error("an address was taken twice")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	for path, want := range map[string]string{
		"/metrics":      `metsuke_build_info{version="v1"} 1`,
		"/healthz":      "ok",
		"/debug/pprof/": "404",
		"/":             "404",
	} {
		resp, err := http.Get("http://" + s.Address().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusOK && !strings.Contains(string(body), want) || (resp.StatusCode == http.StatusNotFound) != (want == "404") {
			t.Errorf("%s: %s, %q, %v", path, resp.Status, body, err)
		}
	}
	if resp, err := http.Post("http://"+s.Address().String()+"/metrics", "", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	// A client that says nothing does not hold up the end.
	silent, err := net.Dial("tcp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
}
