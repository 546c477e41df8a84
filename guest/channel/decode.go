// SPDX-License-Identifier: Apache-2.0

package channel

import "encoding/binary"

// decode decodes the body of a frame. The result shares no memory with body.
func decode(k kind, body []byte) (Message, error) {
	d := decoder{b: body}
	var m Message
	switch k {
	case kindStart:
		m = d.start()
	case kindExpect:
		m = Expect{ID: d.u64(), Exec: d.text(MaxName), Token: d.text(MaxToken), Plan: d.copy(MaxPlan)}
	case kindCancel:
		m = Cancel{ID: d.u64()}
	case kindArm:
		m = Arm{ID: d.u64()}
	case kindAck:
		m = Ack{Seq: d.u64()}
	case kindControl:
		m = Control{ID: d.u64(), Settings: d.settings(), Helper: d.bool()}
	case kindStop:
		m = Stop{}
	case kindReady:
		m = Ready{Version: d.text(MaxName), Kernel: d.text(MaxName), Tasks: d.u32()}
	case kindFound:
		m = Found{
			ID: d.u64(), PID: d.u32(), UID: d.u32(), GID: d.u32(), Seccomp: d.u32(), Filters: d.u32(),
			NoNewPrivs: d.bool(), Values: d.values(),
		}
	case kindArmed:
		m = Armed{ID: d.u64()}
	case kindFailed:
		m = Failed{ID: d.u64(), Stage: d.u8(), Errno: d.u32(), Arg: string(d.sized(MaxText)), Text: d.text(MaxText)}
	case kindEvent:
		m = Event{Seq: d.u64(), Folded: d.u64(), Record: append([]byte(nil), d.bytes(len(d.b))...)}
	case kindFold:
		m = Fold{N: d.u64()}
	case kindReport:
		m = Report{ID: d.u64(), Values: d.values(), Problem: d.text(MaxText)}
	case kindKillInit:
		m = KillInit{}
	case kindFatal:
		m = Fatal{Text: d.text(MaxText)}
	default:
		return nil, ErrType
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// decoder reads a body; after the first error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) start() Start {
	var m Start
	copy(m.Secret[:], d.bytes(SecretSize))
	m.Program = d.copy(MaxProgram)
	m.Ordered, m.Continue, m.Cgroup = d.bool(), d.bool(), d.bool()
	m.Credit = d.u32()
	m.Settings = d.settings()
	for n := d.count(MaxSettings); n > 0 && d.err == nil; n-- {
		m.Watch = append(m.Watch, d.text(MaxFile))
	}
	return m
}

func (d *decoder) settings() (settings []Setting) {
	for n := d.count(MaxSettings); n > 0 && d.err == nil; n-- {
		settings = append(settings, Setting{File: d.text(MaxFile), Value: d.text(MaxText)})
	}
	return settings
}

func (d *decoder) values() (values []Value) {
	for n := d.count(MaxSettings); n > 0 && d.err == nil; n-- {
		values = append(values, Value{File: d.text(MaxFile), Text: d.text(MaxText), Problem: d.text(MaxText)})
	}
	return values
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err, d.b = err, nil
	}
}

// bytes returns the next n bytes, which are the body's.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail(ErrTruncated)
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// count reads a number of things, at most limit.
func (d *decoder) count(limit int) int {
	n := d.u32()
	if uint64(n) > uint64(limit) {
		d.fail(ErrSize)
		return 0
	}
	return int(n)
}

// sized returns the next bytes, whose number stands before them.
func (d *decoder) sized(limit int) []byte { return d.bytes(d.count(limit)) }

func (d *decoder) copy(limit int) []byte { return append([]byte(nil), d.sized(limit)...) }

func (d *decoder) text(limit int) string {
	b := d.sized(limit)
	for _, c := range b {
		if !inText(c) {
			d.fail(ErrValue)
			return ""
		}
	}
	return string(b)
}

func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 {
		d.fail(ErrValue)
	}
	return v == 1
}

func (d *decoder) u8() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); len(b) == 4 {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.bytes(8); len(b) == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		return ErrTrailing
	}
	return d.err
}
