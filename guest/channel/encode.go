// SPDX-License-Identifier: Apache-2.0

package channel

import "encoding/binary"

// kind is the type of a frame.
type kind uint8

// Frames of the host and of the guest are numbered apart, so that a type says its direction.
const (
	kindStart   kind = 1
	kindExpect  kind = 2
	kindCancel  kind = 3
	kindArm     kind = 4
	kindAck     kind = 5
	kindControl kind = 6
	kindStop    kind = 7

	kindReady    kind = 33
	kindFound    kind = 34
	kindArmed    kind = 35
	kindFailed   kind = 36
	kindEvent    kind = 37
	kindFold     kind = 38
	kindReport   kind = 39
	kindKillInit kind = 40
	kindFatal    kind = 41
)

// The greatest bodies of what repeats.
const (
	maxSettings = 4 + MaxSettings*(4+MaxFile+4+MaxText)
	maxValues   = 4 + MaxSettings*(4+MaxFile+4+MaxText+4+MaxText)
)

// bounds gives the direction, and the least and the greatest body of each type.
func (k kind) bounds() (d Direction, least, most int) {
	switch k {
	case kindStart:
		return HostToGuest, SecretSize + 5 + 7 + 8, SecretSize + 4 + MaxProgram + 7 + maxSettings + 4 + MaxSettings*(4+MaxFile)
	case kindExpect:
		return HostToGuest, 8 + 12 + 2, 8 + 12 + MaxName + MaxToken + MaxPlan
	case kindCancel, kindArm, kindAck:
		return HostToGuest, 8, 8
	case kindControl:
		return HostToGuest, 13, 9 + maxSettings
	case kindStop:
		return HostToGuest, 0, 0
	case kindReady:
		return GuestToHost, 12, 12 + 2*MaxName
	case kindFound:
		return GuestToHost, 33, 29 + maxValues
	case kindArmed:
		return GuestToHost, 8, 8
	case kindFailed:
		return GuestToHost, 21, 21 + 2*MaxText
	case kindEvent:
		return GuestToHost, 16 + MinRecord, 16 + MaxRecord
	case kindFold:
		return GuestToHost, 8, 8
	case kindReport:
		return GuestToHost, 16, 12 + MaxText + maxValues
	case kindKillInit:
		return GuestToHost, 0, 0
	case kindFatal:
		return GuestToHost, 4, 4 + MaxText
	}
	return 0, 0, 0
}

func (Start) kind() kind    { return kindStart }
func (Expect) kind() kind   { return kindExpect }
func (Cancel) kind() kind   { return kindCancel }
func (Arm) kind() kind      { return kindArm }
func (Ack) kind() kind      { return kindAck }
func (Control) kind() kind  { return kindControl }
func (Stop) kind() kind     { return kindStop }
func (Ready) kind() kind    { return kindReady }
func (Found) kind() kind    { return kindFound }
func (Armed) kind() kind    { return kindArmed }
func (Failed) kind() kind   { return kindFailed }
func (Event) kind() kind    { return kindEvent }
func (Fold) kind() kind     { return kindFold }
func (Report) kind() kind   { return kindReport }
func (KillInit) kind() kind { return kindKillInit }
func (Fatal) kind() kind    { return kindFatal }

func (m Start) append(dst []byte) []byte {
	dst = append(dst, m.Secret[:]...)
	dst = appendBytes(dst, m.Program)
	dst = appendBools(dst, m.Ordered, m.Continue, m.Cgroup)
	dst = appendU32(dst, m.Credit)
	dst = appendSettings(dst, m.Settings)
	dst = appendU32(dst, uint32(len(m.Watch)))
	for _, f := range m.Watch {
		dst = appendBytes(dst, f)
	}
	return dst
}

func (m Expect) append(dst []byte) []byte {
	dst = appendU64(dst, m.ID)
	dst = appendBytes(dst, m.Exec)
	dst = appendBytes(dst, m.Token)
	return appendBytes(dst, m.Plan)
}

func (m Cancel) append(dst []byte) []byte { return appendU64(dst, m.ID) }
func (m Arm) append(dst []byte) []byte    { return appendU64(dst, m.ID) }
func (m Ack) append(dst []byte) []byte    { return appendU64(dst, m.Seq) }
func (m Stop) append(dst []byte) []byte   { return dst }

func (m Control) append(dst []byte) []byte {
	return appendBools(appendSettings(appendU64(dst, m.ID), m.Settings), m.Helper)
}

func (m Ready) append(dst []byte) []byte {
	dst = appendText(dst, m.Version, MaxName)
	dst = appendText(dst, m.Kernel, MaxName)
	return appendU32(dst, m.Tasks)
}

func (m Found) append(dst []byte) []byte {
	dst = appendU64(dst, m.ID)
	for _, v := range [...]uint32{m.PID, m.UID, m.GID, m.Seccomp, m.Filters} {
		dst = appendU32(dst, v)
	}
	return appendValues(appendBools(dst, m.NoNewPrivs), m.Values)
}

func (m Armed) append(dst []byte) []byte { return appendU64(dst, m.ID) }

func (m Failed) append(dst []byte) []byte {
	dst = append(appendU64(dst, m.ID), m.Stage)
	dst = appendU32(dst, m.Errno)
	dst = appendBytes(dst, m.Arg[:min(len(m.Arg), MaxText)])
	return appendText(dst, m.Text, MaxText)
}

func (m Event) append(dst []byte) []byte {
	return append(appendU64(appendU64(dst, m.Seq), m.Folded), m.Record...)
}

func (m Fold) append(dst []byte) []byte { return appendU64(dst, m.N) }

func (m Report) append(dst []byte) []byte {
	return appendText(appendValues(appendU64(dst, m.ID), m.Values), m.Problem, MaxText)
}

func (m KillInit) append(dst []byte) []byte { return dst }
func (m Fatal) append(dst []byte) []byte    { return appendText(dst, m.Text, MaxText) }

func appendSettings(dst []byte, settings []Setting) []byte {
	dst = appendU32(dst, uint32(len(settings)))
	for _, s := range settings {
		dst = appendBytes(appendBytes(dst, s.File), s.Value)
	}
	return dst
}

func appendValues(dst []byte, values []Value) []byte {
	dst = appendU32(dst, uint32(len(values)))
	for _, v := range values {
		dst = appendBytes(dst, v.File)
		dst = appendText(dst, v.Text, MaxText)
		dst = appendText(dst, v.Problem, MaxText)
	}
	return dst
}

// appendText appends s, cut to most bytes, with '?' for what a receiver would not take.
func appendText(dst []byte, s string, most int) []byte {
	s = s[:min(len(s), most)]
	dst = appendU32(dst, uint32(len(s)))
	for i := range len(s) {
		c := s[i]
		if !inText(c) {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

func appendBytes[T string | []byte](dst []byte, b T) []byte {
	return append(appendU32(dst, uint32(len(b))), b...)
}

func appendBools(dst []byte, values ...bool) []byte {
	for _, v := range values {
		b := byte(0)
		if v {
			b = 1
		}
		dst = append(dst, b)
	}
	return dst
}

func appendU32(dst []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(dst, v) }

func appendU64(dst []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(dst, v) }
