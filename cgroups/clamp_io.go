// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parseDevice reads "major:minor", in the range of the kernel's dev_t.
func parseDevice(s string) (major, minor int64, err error) {
	a, b, ok := strings.Cut(s, ":")
	if !ok || strings.Trim(a+b, "0123456789") != "" {
		return 0, 0, errors.New("is not major:minor")
	}
	x, errX := strconv.ParseUint(a, 10, 12)
	y, errY := strconv.ParseUint(b, 10, 20)
	if errX != nil || errY != nil {
		return 0, 0, errors.New("is not major:minor")
	}
	return int64(x), int64(y), nil
}

type ioKey struct {
	v2, v1 string
	limit  func(*IOLimit) *int64
	oci    func(*specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice
}

// ioKeys are the four rates of one device: their key in io.max, their file of cgroup v1 and their place here
// and in the OCI form. The OCI lists serve both versions; delegates write io.max from them on v2.
var ioKeys = []ioKey{
	{"rbps", "blkio.throttle.read_bps_device", func(l *IOLimit) *int64 { return l.ReadBPS },
		func(b *specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice { return &b.ThrottleReadBpsDevice }},
	{"wbps", "blkio.throttle.write_bps_device", func(l *IOLimit) *int64 { return l.WriteBPS },
		func(b *specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice { return &b.ThrottleWriteBpsDevice }},
	{"riops", "blkio.throttle.read_iops_device", func(l *IOLimit) *int64 { return l.ReadIOPS },
		func(b *specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice { return &b.ThrottleReadIOPSDevice }},
	{"wiops", "blkio.throttle.write_iops_device", func(l *IOLimit) *int64 { return l.WriteIOPS },
		func(b *specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice { return &b.ThrottleWriteIOPSDevice }},
}

func (c *clamper) io() error {
	for i := range c.l.IO {
		d := &c.l.IO[i]
		major, minor, err := parseDevice(d.Device)
		if err != nil {
			return fmt.Errorf("limit %s of %s: the device was not resolved to major:minor on this node", IO, d.Device)
		}
		for _, k := range ioKeys {
			if ceiling := k.limit(d); ceiling != nil {
				c.throttle(k.oci, d.Device+" "+k.v2, major, minor, *ceiling)
			}
		}
	}
	return nil
}

func (c *clamper) throttle(list func(*specs.LinuxBlockIO) *[]specs.LinuxThrottleDevice, name string, major, minor, ceiling int64) {
	found := false
	if c.r.BlockIO != nil {
		for i := range *list(c.r.BlockIO) {
			t := &(*list(c.r.BlockIO))[i]
			if t.Major != major || t.Minor != minor {
				continue
			}
			found = true
			if t.Rate != 0 && t.Rate <= uint64(ceiling) {
				continue
			}
			asked := "unlimited" // zero lifts the throttle on v1
			if t.Rate != 0 {
				asked = strconv.FormatUint(t.Rate, 10)
			}
			t.Rate = uint64(ceiling)
			c.changed(IO+" "+name, "blockIO", asked, plain(ceiling), plain(ceiling))
		}
	}
	if found || c.update {
		return
	}
	if c.r.BlockIO == nil {
		c.r.BlockIO = &specs.LinuxBlockIO{}
	}
	t := specs.LinuxThrottleDevice{Rate: uint64(ceiling)}
	t.Major, t.Minor = major, minor
	l := list(c.r.BlockIO)
	*l = append(*l, t)
	c.changed(IO+" "+name, "blockIO", "", plain(ceiling), plain(ceiling))
}

// ioMax clamps the lines of a pod's own io.max ("8:16 rbps=2097152 wiops=max").
func (c *clamper) ioMax(value string) (string, error) {
	lines := strings.Split(value, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		major, minor, err := parseDevice(fields[0])
		if err != nil {
			return "", fmt.Errorf("line %q does not begin with major:minor", line)
		}
		at := slices.IndexFunc(c.l.IO, func(d IOLimit) bool {
			a, b, err := parseDevice(d.Device)
			return err == nil && a == major && b == minor
		})
		if at < 0 {
			continue
		}
		for j, field := range fields[1:] {
			key, have, _ := strings.Cut(field, "=")
			k := slices.IndexFunc(ioKeys, func(k ioKey) bool { return k.v2 == key })
			if k < 0 {
				return "", fmt.Errorf("line %q has the unknown key %q", line, key)
			}
			ceiling := ioKeys[k].limit(&c.l.IO[at])
			if ceiling == nil {
				continue
			}
			n, err := parseKernel(have)
			if err != nil {
				return "", fmt.Errorf("%s of line %q %w", key, line, err)
			}
			if n > *ceiling {
				fields[j+1] = key + "=" + plain(*ceiling)
				lines[i] = strings.Join(fields, " ")
				c.changed(IO+" "+fields[0]+" "+key, "unified io.max", requested(n, true, plain), plain(*ceiling), plain(*ceiling))
			}
		}
	}
	return strings.Join(lines, "\n"), nil
}
