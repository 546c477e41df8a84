// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"

	"metsuke.dev/metsuke/audit"
)

// Bounds of the encoded names, so that a directory's name stays below NAME_MAX (255 bytes).
const (
	maxNamespace = 64
	maxPod       = 110
	maxUID       = 64
	maxContainer = 200
)

// Dir is the directory of a stream: <root>/<namespace>_<pod>_<uid>/<container>.
//
// The names come from the pod and are encoded: A-Z a-z 0-9 "-", "." (but not as the first character) and,
// in the container's name, "_" stand for themselves; any other byte is %XX. A name whose encoded form is
// too long is cut, and ends in "%-" and the first 16 hex digits of the SHA-256 of the whole name. An empty
// name is "%-". So different names never share a directory, and none is hidden, "." or "..".
func Dir(root string, id audit.Identity) string {
	return filepath.Join(root, PodName(id.Namespace, id.Pod, id.PodUID), ContainerName(id.Container))
}

// PodName is the pod's part of Dir.
func PodName(namespace, pod, uid string) string {
	return encodeName(namespace, maxNamespace, false) + "_" + encodeName(pod, maxPod, false) + "_" +
		encodeName(uid, maxUID, false)
}

// ContainerName is the container's part of Dir.
func ContainerName(name string) string { return encodeName(name, maxContainer, true) }

// Names tells whether the stream is one of the given namespace, pod and container; an empty one stands for any.
func (s Stream) Names(namespace, pod, container string) bool {
	parts := strings.Split(s.Pod, "_") // which the encoded names do not hold
	return len(parts) == 3 &&
		(namespace == "" || parts[0] == encodeName(namespace, maxNamespace, false)) &&
		(pod == "" || parts[1] == encodeName(pod, maxPod, false)) &&
		(container == "" || s.Container == ContainerName(container))
}

func encodeName(name string, limit int, underscore bool) string {
	const cutMark, digits, cutLen = "%-", "0123456789ABCDEF", 2 + 16
	if name == "" {
		return cutMark
	}
	out := make([]byte, 0, min(len(name), limit)+3)
	whole := 0 // what may stay if the rest does not fit
	for i := 0; i < len(name); i++ {
		b := name[i]
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-',
			b == '.' && i > 0, b == '_' && underscore:
			out = append(out, b)
		default:
			out = append(out, '%', digits[b>>4], digits[b&15])
		}
		if len(out) <= limit-cutLen {
			whole = len(out)
		}
		if len(out) > limit {
			sum := sha256.Sum256([]byte(name))
			return string(out[:whole]) + cutMark + hex.EncodeToString(sum[:8])
		}
	}
	return string(out)
}
