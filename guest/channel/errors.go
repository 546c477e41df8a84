// SPDX-License-Identifier: Apache-2.0

package channel

// Error is a constant error of this package.
type Error string

func (e Error) Error() string { return "supervisor channel: " + string(e) }

// The errors of encoding and decoding. None of them leaves a Receiver usable.
const (
	ErrMagic     Error = "not a frame of this protocol"
	ErrVersion   Error = "peer speaks another version; shim and metsuke-guest must be of one build"
	ErrType      Error = "unknown type of frame, or not one of this direction, or not at this place"
	ErrSize      Error = "size out of bounds"
	ErrTruncated Error = "ends early"
	ErrTrailing  Error = "bytes after the end of the body"
	ErrValue     Error = "value out of range"
	ErrMAC       Error = "frame is not of this peer, or not in its place"
)
