// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)

func fresh(t *testing.T, host string, at time.Time) *tls.Certificate {
	t.Helper()
	c, err := New(host, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The API server verifies a certificate of a bundle as its own root, for the name of the service and no other.
func TestIsItsOwnRoot(t *testing.T) {
	c, other := fresh(t, "a.b.svc", now), fresh(t, "a.b.svc", now)
	roots := x509.NewCertPool()
	roots.AddCert(c.Leaf)
	for _, tt := range []struct {
		leaf *x509.Certificate
		host string
		at   time.Time
		ok   bool
	}{
		{c.Leaf, "a.b.svc", now, true},
		{c.Leaf, "c.b.svc", now, false},
		{c.Leaf, "a.b.svc", now.Add(2 * time.Hour), false},
		{other.Leaf, "a.b.svc", now, false},
	} {
		_, err := tt.leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tt.host, CurrentTime: tt.at})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.host, err)
		}
	}
}

func TestPinned(t *testing.T) {
	c, other := fresh(t, "n", now), fresh(t, "n", now)
	verify := Pinned(Digest(c.Leaf.Raw))
	if err := verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}}); err != nil {
		t.Error(err)
	}
	for _, peer := range [][]*x509.Certificate{nil, {other.Leaf}, {other.Leaf, c.Leaf}} {
		if verify(tls.ConnectionState{PeerCertificates: peer}) == nil {
			t.Errorf("taken: %d certificates", len(peer))
		}
	}
}

func TestBundle(t *testing.T) {
	old, a, b := fresh(t, "x", now.Add(-2*time.Hour)), fresh(t, "x", now), fresh(t, "x", now)
	bundle := ParseBundle([]byte("hello\n" + string(Bundle{old.Leaf, a.Leaf}.PEM()) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	if len(bundle) != 2 || !bundle.Has(a.Leaf, now) || bundle.Has(old.Leaf, now) || bundle.Has(b.Leaf, now) {
		t.Fatalf("%d certificates", len(bundle))
	}
	if with := bundle.With(b.Leaf, now).With(b.Leaf, now); len(with) != 2 || !with.Has(a.Leaf, now) || !with.Has(b.Leaf, now) {
		t.Errorf("%d certificates", len(with))
	}
	for range 2 * maxBundle {
		bundle = bundle.With(fresh(t, "x", now).Leaf, now)
	}
	if text := string(bundle.PEM()); len(bundle) != maxBundle || strings.Count(text, "BEGIN") != maxBundle {
		t.Errorf("%d certificates", len(bundle))
	}
}
