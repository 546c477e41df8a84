// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/report/reporttest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
	"metsuke.dev/metsuke/internal/goldentest"
)

var verifiedAt = time.Date(2026, 11, 21, 11, 0, 0, 0, time.UTC)

// of reads the streams below root, and verifies them.
func of(t testing.TB, root string, keys signature.Ring) *Report {
	t.Helper()
	r := &Report{}
	every := func(stream.Stream) bool { return true }
	ledger, err := verify.Node(root, keys, every, func(s *verify.Stream) error {
		if s.SignedAt != nil { // which is when the test ran
			s.SignedAt = &verifiedAt
		}
		r.Verified(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Ledger(ledger)
	err = query.Read(t.Context(), root, &query.Filter{}, query.Options{Last: query.All, Borrow: true, Missing: r.Missing}, func(e query.Entry) error {
		r.Add(e.Record, e.Stream)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t testing.TB, r *Report, a About) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.Write(&out, a); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestGolden(t *testing.T) {
	root, key := t.TempDir(), reporttest.Key(t)
	reporttest.Write(t, root, key, reporttest.Session())
	about := About{Pod: "team-a/coder", Version: "0.1.0", At: verifiedAt, Keys: []string{key.Fingerprint()}, OwnKey: true}
	got := write(t, of(t, root, signature.Ring{key.Public}), about)
	goldentest.Equal(t, "testdata/session.html", got)
	if again := write(t, of(t, root, signature.Ring{key.Public}), about); again != got {
		t.Error("another page is made of the same streams")
	}
}

// A pod that was there twice has two streams of each container, which are told apart.
func TestPodsOfOneName(t *testing.T) {
	root, key := t.TempDir(), reporttest.Key(t)
	again := reporttest.Session()[2]
	again.Identity.PodUID = "0d8f1f2b-3c4d"
	reporttest.Write(t, root, key, append(reporttest.Session(), again))
	page := write(t, of(t, root, signature.Ring{key.Public}), About{At: verifiedAt, Keys: []string{key.Fingerprint()}})
	for _, want := range []string{">agent<", ">proxy of pod 6f1c2a4e-9d0<", ">proxy of pod 0d8f1f2b-3c4<", `class="word">proven<`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

// Records that were not verified, because they or their stream came later, make the evidence undecided, and are told.
func TestLater(t *testing.T) {
	root, key := t.TempDir(), reporttest.Key(t)
	reporttest.Write(t, root, key, reporttest.Session()[2:])
	r := &Report{}
	if _, err := verify.Node(root, signature.Ring{key.Public}, func(stream.Stream) bool { return true }, func(s *verify.Stream) error {
		s.Records -= 2
		r.Verified(s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	reporttest.Write(t, root, key, reporttest.Session()[:1])
	if err := query.Read(t.Context(), root, &query.Filter{}, query.Options{Last: query.All}, func(e query.Entry) error {
		r.Add(e.Record, e.Stream)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	page := write(t, r, About{At: verifiedAt, Keys: []string{key.Fingerprint()}})
	for _, want := range []string{`class="word">undecided<`, "it was not verified: it came later", "; records 22 to 23 came after that"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}
