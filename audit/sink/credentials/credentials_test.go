// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit/shipper/config"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// makePair returns a certificate that signs itself, and its key, in PEM.
func makePair(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x"}}
	der, err := x509.CreateCertificate(rand.Reader, form, form, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der8}))
}

// TestTLSIsReadAnew: the next connection has the files as they are then.
func TestTLSIsReadAnew(t *testing.T) {
	dir := t.TempDir()
	c := &config.TLS{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	for serial := int64(1); serial <= 2; serial++ {
		cert, key := makePair(t, serial)
		write(t, c.CA, cert, 0o644)
		write(t, c.Cert, cert, 0o644)
		write(t, c.Key, key, 0o600)
		got, err := TLS(c, "collector")
		if err != nil {
			t.Fatal(err)
		}
		if got.ServerName != "collector" || got.InsecureSkipVerify || got.RootCAs == nil {
			t.Errorf("%+v", got)
		}
		leaf, err := x509.ParseCertificate(got.Certificates[0].Certificate[0])
		if err != nil || leaf.SerialNumber.Int64() != serial {
			t.Errorf("certificate %v, %v; want %d", leaf.SerialNumber, err, serial)
		}
	}
	c.ServerName = "other"
	if got, err := TLS(c, "collector"); err != nil || got.ServerName != "other" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := TLS(nil, "10.0.0.1"); err != nil || got.ServerName != "10.0.0.1" || got.RootCAs != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTLSFaults(t *testing.T) {
	dir := t.TempDir()
	cert, key := makePair(t, 1)
	other, _ := makePair(t, 2)
	certFile, keyFile := write(t, filepath.Join(dir, "cert"), cert, 0o644), write(t, filepath.Join(dir, "key"), key, 0o600)
	for name, tt := range map[string]struct {
		tls config.TLS
		err string
	}{
		"no file":       {config.TLS{CA: filepath.Join(dir, "none")}, "no such file"},
		"no PEM":        {config.TLS{CA: write(t, filepath.Join(dir, "text"), "SECRET", 0o644)}, "no certificate"},
		"open key":      {config.TLS{Cert: certFile, Key: write(t, filepath.Join(dir, "open"), key, 0o644)}, "everybody"},
		"another's key": {config.TLS{Cert: write(t, filepath.Join(dir, "other"), other, 0o644), Key: keyFile}, "private key does not match"},
		"no key":        {config.TLS{Cert: certFile, Key: write(t, filepath.Join(dir, "nokey"), "SECRET", 0o600)}, "failed to find any PEM data"},
		"directory":     {config.TLS{CA: dir}, "not a file"},
	} {
		_, err := TLS(&tt.tls, "x")
		if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "a"), " s3cret\n", 0o640)
	if got, err := Secret(path); got != "s3cret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	link := filepath.Join(dir, "link") // as Kubernetes mounts secrets
	if err := os.Symlink("a", link); err != nil {
		t.Fatal(err)
	}
	if got, err := Secret(link); got != "s3cret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{
		filepath.Join(dir, "none"), write(t, filepath.Join(dir, "open"), "s3cret", 0o644), write(t, filepath.Join(dir, "blank"), "\n", 0o600),
		write(t, filepath.Join(dir, "large"), strings.Repeat("s3cret", maxFile), 0o600),
	} {
		if got, err := Secret(bad); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %q, %v", bad, got, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	dir := t.TempDir()
	got, err := Headers(write(t, filepath.Join(dir, "a"), "# for the collector\nAuthorization: Bearer x:y\n\nX-Tenant:7\n", 0o600))
	if diff := cmp.Diff(map[string]string{"authorization": "Bearer x:y", "x-tenant": "7"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, text := range map[string]string{
		"no colon": "s3cret", "no name": ": s3cret", "no value": "a:\nb: s3cret", "twice": "a: s3cret\nA: s3cret", "control": "a: s3cret\x00",
	} {
		if _, err := Headers(write(t, filepath.Join(dir, "b"), text, 0o600)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
