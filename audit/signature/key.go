// SPDX-License-Identifier: Apache-2.0

// Package signature signs what Metsuke says of its audit streams: Ed25519 keys (RFC 8032), their files, and the form of a signed
// line. Nothing in it keeps state; keys and rings are safe for concurrent use.
package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// The forms of a key: RFC 8410, sections 4 and 7, in DER. An Ed25519 key has no parameters, so what is around its 32 bytes is always
// the same, and reading it takes no parser.
var (
	privateHead = []byte{0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20}
	publicHead  = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}
)

const (
	privateType = "PRIVATE KEY" // PEM, RFC 7468
	publicType  = "PUBLIC KEY"
)

// ErrKey is wrapped by the errors for what is no key of a kind that this package takes.
var ErrKey = errors.New("not an Ed25519 key in PEM (PKCS#8), as openssl genpkey -algorithm ed25519 makes it")

// Key signs.
type Key struct {
	Public
	private ed25519.PrivateKey
}

// Public is the half of a key that everybody may have.
type Public struct {
	key         ed25519.PublicKey
	fingerprint string
}

// New makes a key.
func New() (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return fromSeed(seed), nil
}

func fromSeed(seed []byte) *Key {
	private := ed25519.NewKeyFromSeed(seed)
	return &Key{Public: fromPublic(private.Public().(ed25519.PublicKey)), private: private}
}

func fromPublic(key ed25519.PublicKey) Public {
	sum := sha256.Sum256(append(bytes.Clone(publicHead), key...))
	return Public{key: key, fingerprint: hex.EncodeToString(sum[:])}
}

// Fingerprint names the key: SHA-256 of its public half in DER, 64 hex digits. openssl pkey -pubin -outform DER | sha256sum says the same.
func (p Public) Fingerprint() string { return p.fingerprint }

// PEM returns the public half as a block of PEM.
func (p Public) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: append(bytes.Clone(publicHead), p.key...)})
}

// pem returns the whole key, which is secret.
func (k *Key) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: append(bytes.Clone(privateHead), k.private.Seed()...)})
}

// Parse reads a key from PEM.
func Parse(data []byte) (*Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != privateType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, ErrKey
	}
	seed, ok := bytes.CutPrefix(block.Bytes, privateHead)
	if !ok || len(seed) != ed25519.SeedSize {
		return nil, ErrKey
	}
	return fromSeed(seed), nil
}

// A Ring is the keys by which a reader judges signatures.
type Ring []Public

// ParseRing reads one or more keys from PEM, one after the other. Of a private one it takes the public half.
func ParseRing(data []byte) (Ring, error) {
	var ring Ring
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, ErrKey
		}
		data = rest
		if seed, ok := bytes.CutPrefix(block.Bytes, privateHead); ok && block.Type == privateType && len(seed) == ed25519.SeedSize {
			ring = append(ring, fromSeed(seed).Public)
			continue
		}
		key, ok := bytes.CutPrefix(block.Bytes, publicHead)
		if !ok || block.Type != publicType || len(key) != ed25519.PublicKeySize {
			return nil, ErrKey
		}
		ring = append(ring, fromPublic(key))
	}
	if ring == nil {
		return nil, ErrKey
	}
	return ring, nil
}

func (r Ring) find(fingerprint string) (Public, bool) {
	for _, p := range r {
		if p.fingerprint == fingerprint {
			return p, true
		}
	}
	return Public{}, false
}
