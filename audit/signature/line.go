// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
)

// A signed line is a JSON object on one line whose last two fields say who signed it, and the signature:
//
//	…,"key":"<fingerprint>","signature":"<128 hex digits>"}
//
// What is signed is the context, a newline, and the line up to and without `,"signature":"`. The context says what the line is, so that
// a line of one file does not pass for one of another.
const (
	keyField       = `,"key":"`
	signatureField = `,"signature":"`
	lineEnd        = `"}` + "\n"
	fingerprintLen = 64
	signatureLen   = 2 * ed25519.SignatureSize
	signedLen      = len(keyField) + fingerprintLen + len(`"`) // of the tail, what is signed too
	tailLen        = signedLen + len(signatureField) + signatureLen + len(lineEnd)
)

// Added is how many bytes Sign adds to an object.
const Added = tailLen - 1

// What is wrong with a line that Check refuses.
var (
	ErrForm      = errors.New("not a signed line")
	ErrSignature = errors.New("the signature does not fit: the line was changed, or made without the key")
)

// UnknownKeyError says that a line was signed with a key that the ring does not have.
type UnknownKeyError struct{ Fingerprint string }

// Error implements error.
func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("signed with the key %s, which was not given", e.Fingerprint)
}

// Sign completes a JSON object that has fields, and no newline, to a signed line with its newline.
func (k *Key) Sign(context string, object []byte) []byte {
	line := make([]byte, 0, len(object)+Added)
	line = append(line, object[:len(object)-1]...)
	line = append(line, keyField...)
	line = append(append(line, k.fingerprint...), '"')
	signature := ed25519.Sign(k.private, message(context, line))
	line = append(line, signatureField...)
	line = hex.AppendEncode(line, signature)
	return append(line, lineEnd...)
}

// message is what is signed of a line that ends behind the fingerprint.
func message(context string, line []byte) []byte {
	m := make([]byte, 0, len(context)+1+len(line))
	m = append(m, context...)
	m = append(m, '\n')
	return append(m, line...)
}

// Check verifies a line with its newline, and returns the fingerprint of its key. The error wraps ErrForm or ErrSignature, or is an
// *UnknownKeyError. There is one form for a signature, so no byte of a line can be changed unseen.
func (r Ring) Check(context string, line []byte) (fingerprint string, err error) {
	body, fingerprint, signature, err := split(line)
	if err != nil {
		return "", err
	}
	key, ok := r.find(fingerprint)
	if !ok {
		return fingerprint, &UnknownKeyError{fingerprint}
	}
	if !ed25519.Verify(key.key, message(context, body), signature) {
		return fingerprint, ErrSignature
	}
	return fingerprint, nil
}

func split(line []byte) (body []byte, fingerprint string, signature []byte, err error) {
	n := len(line) - tailLen
	if n < 1 {
		return nil, "", nil, ErrForm
	}
	rest, ok := bytes.CutPrefix(line[n:], []byte(keyField))
	name := rest[:min(len(rest), fingerprintLen)]
	if !ok || !isHex(name) {
		return nil, "", nil, ErrForm
	}
	rest, ok = bytes.CutPrefix(rest[fingerprintLen:], []byte(`"`+signatureField))
	if !ok || !isHex(rest[:signatureLen]) || string(rest[signatureLen:]) != lineEnd {
		return nil, "", nil, ErrForm
	}
	signature, err = hex.DecodeString(string(rest[:signatureLen]))
	if err != nil {
		return nil, "", nil, ErrForm
	}
	return line[:n+signedLen], string(name), signature, nil
}

// isHex: lower case only, so that there is one way to write a number.
func isHex(text []byte) bool {
	for _, b := range text {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return false
		}
	}
	return true
}
