// SPDX-License-Identifier: Apache-2.0

package question

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode"
)

// maxMessage bounds the message of a refusal, in bytes.
const maxMessage = 2048

// Refuse answers a request with a code and why, in the form of a Status of Kubernetes (meta/v1), which every client of its API reads.
func Refuse(w http.ResponseWriter, code int, message string) {
	Write(w, code, map[string]any{
		"apiVersion": "v1", "kind": "Status", "metadata": map[string]any{}, "status": "Failure",
		"reason": reasons[code], "code": code, "message": plain(message),
	})
}

// Write answers a request with an object as JSON.
func Write(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // whoever is gone needs no answer
}

// reasons are those of meta/v1.StatusReason.
var reasons = map[int]string{
	http.StatusBadRequest: "BadRequest", http.StatusUnauthorized: "Unauthorized", http.StatusForbidden: "Forbidden",
	http.StatusNotFound: "NotFound", http.StatusMethodNotAllowed: "MethodNotAllowed", http.StatusConflict: "Conflict",
	http.StatusTooManyRequests: "TooManyRequests", http.StatusServiceUnavailable: "ServiceUnavailable",
	http.StatusInternalServerError: "InternalError", http.StatusBadGateway: "ServiceUnavailable",
}

// plain is a message that cannot act on a terminal: kubectl prints it as it is.
func plain(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxMessage)], "")
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// Records is the media type of the answer about a Log: an object a line.
const Records = "application/x-ndjson"

// Problem is a line among records that says what was passed over. No record has the field.
type Problem struct {
	Problem string `json:"problem"`
}
