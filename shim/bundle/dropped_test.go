// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

func TestPlanDropped(t *testing.T) {
	for in, want := range map[string]plan.Plan{
		`{}`: {},
		`{"noNewPrivileges":true,"rlimits":[],"oomScoreAdj":0,"new":1.0}`: {NoNewPrivs: true, OOMScoreAdj: ptr(0)},
		`{"rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":1048576},{"type":"RLIMIT_CORE","soft":0,"hard":18446744073709551615}],"oomScoreAdj":-998}`: {
			Rlimits:     []plan.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: 1024, Max: 1 << 20}, {Resource: unix.RLIMIT_CORE, Max: math.MaxUint64}},
			OOMScoreAdj: ptr(-998),
		},
		`{"rlimits":null,"oomScoreAdj":null}`: {},
	} {
		// What was in the plan before is not what the process says.
		got := plan.Plan{NoNewPrivs: true, Rlimits: []plan.Rlimit{{Resource: 1}}, OOMScoreAdj: ptr(5)}
		process(t, in, in, PlanDropped(&got))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	for in, want := range map[string]string{
		`{"rlimits":[{"type":"RLIMIT_TOMORROW","soft":1,"hard":1}]}`:                                    `"RLIMIT_TOMORROW" is no resource limit`,
		`{"rlimits":[{"type":"NOFILE","soft":1,"hard":1}]}`:                                             `"NOFILE" is no`,
		`{"rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":2,"hard":2}]}`: "RLIMIT_CPU is there twice",
		`{"rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}]}`:                                         "2 is above its maximum, 1",
		`{"rlimits":[{"type":"RLIMIT_CPU","soft":-1,"hard":1}]}`:                                        "process.rlimits",
		`{"Rlimits":[]}`:            "is spelled",
		`{"oomScoreAdj":1001}`:      "not within -1000 and 1000",
		`{"oomScoreAdj":-1001}`:     "not within -1000 and 1000",
		`{"oomScoreAdj":1.5}`:       "process.oomScoreAdj",
		`{"nonewprivileges":false}`: "is spelled",
	} {
		var p plan.Plan
		if _, err := EditProcess([]byte(in), PlanDropped(&p)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", in, err, want)
		}
	}
}

// TestRlimitNumbers holds the table to the kernel's headers.
func TestRlimitNumbers(t *testing.T) {
	for name, number := range map[string]int{
		"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_STACK": unix.RLIMIT_STACK,
		"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
		"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
		"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	} {
		if rlimits[number] != name {
			t.Errorf("%d is %s, not %s", number, name, rlimits[number])
		}
	}
	if len(rlimits) != plan.MaxRlimits {
		t.Errorf("%d names", len(rlimits))
	}
}
