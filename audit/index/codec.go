// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

var magic = []byte("metsuke index 1\n")

const encodedBytes = 16 + sha256.Size + 16 + wordBytes + execBytes + pathBytes + addressBytes + sha256.Size

// encode returns the summary as a file has it: a heading, the segment's key, the bounds of its time, the filters, a checksum.
func (s *Summary) encode(key Key) []byte {
	out := append(make([]byte, 0, encodedBytes), magic...)
	out = append(out, key[:]...)
	out = binary.LittleEndian.AppendUint64(out, uint64(s.from))
	out = binary.LittleEndian.AppendUint64(out, uint64(s.to))
	for _, filter := range s.filters() {
		out = append(out, filter...)
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

var errNoIndex = errors.New("not an index of this segment")

func (s *Summary) decode(data []byte, key Key) error {
	if len(data) != encodedBytes || !bytes.HasPrefix(data, magic) || !bytes.HasPrefix(data[len(magic):], key[:]) {
		return errNoIndex
	}
	body := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		return errNoIndex
	}
	body = body[len(magic)+len(key):]
	s.from = int64(binary.LittleEndian.Uint64(body))
	s.to = int64(binary.LittleEndian.Uint64(body[8:]))
	body = body[16:]
	for _, filter := range s.filters() {
		body = body[copy(filter, body):]
	}
	return nil
}

func (s *Summary) filters() [][]byte {
	return [][]byte{s.words[:], s.execs[:], s.paths[:], s.addresses[:]}
}
