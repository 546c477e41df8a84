// SPDX-License-Identifier: Apache-2.0

// Package certificate makes the certificates by which Metsuke's controller and agents know each other. Each process makes its own
// and keeps the key in its memory; others are told the certificate, or its digest, through an object of the API server.
package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// slack is how far clocks may be apart.
const slack = time.Hour

// New makes a key and a self-signed certificate for both ends of a connection, which names the host and is valid for so long from now on.
func New(host string, now time.Time, valid time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now.Add(-slack), NotAfter: now.Add(valid),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Digest returns what a certificate is pinned by: the sha256 of its DER, in hex.
func Digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// errOther is that a peer has another certificate than it should.
var errOther = errors.New("the peer has another certificate than it has published")

// Pinned returns how to verify that the peer has the certificate of this digest (tls.Config.VerifyConnection).
func Pinned(digest string) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 || Digest(s.PeerCertificates[0].Raw) != digest {
			return errOther
		}
		return nil
	}
}

// Bundle is some certificates that are trusted themselves, none of which signs others.
type Bundle []*x509.Certificate

// maxBundle bounds how many certificates a bundle has: replicas, and those that were replaced lately.
const maxBundle = 16

// ParseBundle reads certificates in PEM. What is no certificate is left out.
func ParseBundle(data []byte) (b Bundle) {
	for len(b) < maxBundle {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			b = append(b, c)
		}
	}
	return b
}

// Has tells whether a certificate is in the bundle, and valid now.
func (b Bundle) Has(c *x509.Certificate, now time.Time) bool {
	for _, one := range b {
		if bytes.Equal(one.Raw, c.Raw) {
			return valid(c, now)
		}
	}
	return false
}

func valid(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotBefore) && now.Before(c.NotAfter)
}

// With returns the bundle with one more certificate in front, without those that are not valid any more, and without the last where
// there would be too many.
func (b Bundle) With(c *x509.Certificate, now time.Time) Bundle {
	out := Bundle{c}
	for _, one := range b {
		if valid(one, now) && !bytes.Equal(one.Raw, c.Raw) && len(out) < maxBundle {
			out = append(out, one)
		}
	}
	return out
}

// PEM returns the bundle as ParseBundle reads it.
func (b Bundle) PEM() []byte {
	var out []byte
	for _, c := range b {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
