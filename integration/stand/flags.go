// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"flag"
	"fmt"
	"slices"
)

// Setup is what the flags of a command choose of a stand.
type Setup struct {
	Version   Version
	Delegate  *Delegate
	Placement Placement // of every supervisor; "" is where Metsuke puts it by itself
}

// SetupFlags defines the flags -containerd, -delegate and -placement. flag.Parse fills the result.
func SetupFlags() *Setup {
	s := &Setup{Version: V2, Delegate: Runc}
	flag.Func("containerd", "containerd `version`, 2.4 or 1.7 (default 2.4)", func(text string) error {
		s.Version = Version(text)
		if !slices.Contains(Versions, s.Version) {
			return fmt.Errorf("one of %v", Versions)
		}
		return nil
	})
	flag.Func("delegate", "the `shim` that really runs the pods, runc or kata (default runc)", func(text string) (err error) {
		s.Delegate, err = DelegateNamed(text)
		return err
	})
	flag.Func("placement", "`where` supervisors run, host or guest (default: where Metsuke puts them by itself)", func(text string) error {
		s.Placement = Placement(text)
		if !slices.Contains([]Placement{"", Host, Guest}, s.Placement) {
			return fmt.Errorf("one of %s, %s", Host, Guest)
		}
		return nil
	})
	return s
}

// Tools are the tool sets that the stand needs, for [Enter].
func (s *Setup) Tools() []string { return append(s.Delegate.Tools(), s.Version.Set(), "cni") }
