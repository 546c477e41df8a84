// SPDX-License-Identifier: Apache-2.0

package channel

func (m Start) check() error {
	if len(m.Program) == 0 || len(m.Program) > MaxProgram || m.Credit < MaxRecord || m.Credit > MaxCredit {
		return ErrSize
	}
	if len(m.Watch) > MaxSettings {
		return ErrSize
	}
	for _, f := range m.Watch {
		if !validFile(f) {
			return ErrValue
		}
	}
	return checkSettings(m.Settings)
}

func (m Expect) check() error {
	if len(m.Exec) > MaxName || len(m.Token) == 0 || len(m.Token) > MaxToken || len(m.Plan) == 0 || len(m.Plan) > MaxPlan {
		return ErrSize
	}
	for i := range len(m.Token) {
		if m.Token[i] <= ' ' || m.Token[i] > '~' {
			return ErrValue
		}
	}
	return checkID(m.ID)
}

func (m Cancel) check() error { return checkID(m.ID) }
func (m Arm) check() error    { return checkID(m.ID) }
func (m Ack) check() error    { return checkID(m.Seq) }
func (m Stop) check() error   { return nil }

func (m Control) check() error {
	if err := checkID(m.ID); err != nil {
		return err
	}
	return checkSettings(m.Settings)
}

func (m Ready) check() error { return nil }

func (m Found) check() error {
	if err := checkID(m.ID); err != nil {
		return err
	}
	return checkValues(m.Values)
}

func (m Armed) check() error  { return checkID(m.ID) }
func (m Failed) check() error { return checkID(m.ID) }

func (m Event) check() error {
	if len(m.Record) < MinRecord || len(m.Record) > MaxRecord {
		return ErrSize
	}
	return checkID(m.Seq)
}

func (m Fold) check() error { return checkID(m.N) }

func (m Report) check() error {
	if err := checkID(m.ID); err != nil {
		return err
	}
	return checkValues(m.Values)
}

func (m KillInit) check() error { return nil }
func (m Fatal) check() error    { return nil }

// checkID refuses 0, which no id, sequence number or count is.
func checkID(id uint64) error {
	if id == 0 {
		return ErrValue
	}
	return nil
}

func checkSettings(settings []Setting) error {
	if len(settings) > MaxSettings {
		return ErrSize
	}
	for _, s := range settings {
		if len(s.Value) > MaxText {
			return ErrSize
		}
		if !validFile(s.File) {
			return ErrValue
		}
		for i := range len(s.Value) {
			if s.Value[i] < ' ' || s.Value[i] > '~' {
				return ErrValue
			}
		}
	}
	return nil
}

func checkValues(values []Value) error {
	if len(values) > MaxSettings {
		return ErrSize
	}
	for _, v := range values {
		if !validFile(v.File) || v.Text != "" && v.Problem != "" {
			return ErrValue
		}
	}
	return nil
}

// validFile says whether f can be the name of a file of a cgroup: nothing that leads elsewhere.
func validFile(f string) bool {
	if f == "" || len(f) > MaxFile || f[0] == '.' {
		return false
	}
	for i := range len(f) {
		switch c := f[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// inText says whether a byte may stand in a text.
func inText(c byte) bool { return c >= ' ' && c <= '~' || c == '\n' || c == '\t' }
