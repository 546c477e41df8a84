// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
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
