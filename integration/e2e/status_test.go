// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/parity/probe"
	"metsuke.dev/metsuke/integration/stand"
)

// cell is one container of the table: what decides over a process's identity.
type cell struct {
	uid          int64
	nnp          bool
	filtered     bool // by containerd's own seccomp profile
	capabilities string
}

func cells() (all []cell) {
	for _, uid := range []int64{0, 4242} {
		for _, nnp := range []bool{false, true} {
			for _, filtered := range []bool{false, true} {
				for _, capabilities := range []string{"default", "added", "dropped"} {
					all = append(all, cell{uid, nnp, filtered, capabilities})
				}
			}
		}
	}
	return all
}

func (c cell) String() string {
	return fmt.Sprintf("uid %d, nnp %v, RuntimeDefault %v, %s capabilities", c.uid, c.nnp, c.filtered, c.capabilities)
}

// config is the cell as a container of the probe.
func (c cell) config(number int, image string) stand.ContainerConfig {
	return stand.ContainerConfig{
		Name: fmt.Sprint("cell-", number), Image: image, Command: []string{"probe", "hold"},
		Env:    []string{"GODEBUG=inittrace=1", "A=b c", "GOMAXPROCS=1", "TERM=xterm"},
		Limits: &runtimeapi.LinuxContainerResources{OomScoreAdj: 321},
		Modify: func(config *runtimeapi.ContainerConfig) {
			config.WorkingDir = "/var/run"
			security := config.Linux.SecurityContext
			security.RunAsUser, security.RunAsGroup = &runtimeapi.Int64Value{Value: c.uid}, &runtimeapi.Int64Value{Value: c.uid + 1}
			security.SupplementalGroups = []int64{5, 10}
			security.NoNewPrivs = c.nnp
			security.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
			if c.filtered {
				security.Seccomp.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
			}
			switch c.capabilities {
			case "added": // one of them is among those that a launcher is lent
				lent := "SYS_PTRACE"
				if delegate == stand.Runc {
					lent = "SYS_ADMIN" // who may trace launchers is refused (bundle.RefuseTracer)
				}
				security.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN", lent}}
			case "dropped":
				security.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
			}
		},
	}
}

// seen is what a cell's processes report, by the name of the process.
type seen map[string]map[string]string

// The exec sessions of a cell: as CRI asks for one, and one whose limits, OOM score and no_new_privs are others than the
// container's.
var cellSessions = map[string]func(*specs.Process){
	"exec": func(*specs.Process) {},
	"exec with limits of its own": func(p *specs.Process) {
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 777, Hard: 888}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 4096}}
		p.OOMScoreAdj = new(300)
		p.NoNewPrivileges = !p.NoNewPrivileges
	},
}

// look runs a cell's container and its sessions. It fails by its result: it runs beside another one.
func (p *pod) look(number int, c cell, image string) (seen, error) {
	made, err := p.Run(p.h.ctx, c.config(number, image))
	if err != nil {
		return nil, err
	}
	out := ""
	for !strings.HasSuffix(out, probe.End) {
		select {
		case <-p.h.ctx.Done():
			return nil, fmt.Errorf("the probe's report ends early: %w\n%s", p.h.ctx.Err(), out)
		case <-time.After(5 * time.Millisecond):
		}
		if out, err = made.Output(); err != nil {
			return nil, err
		}
	}
	found := seen{"init": probe.Read(out, true, made.ID, "ID")}
	for name, edit := range cellSessions {
		out, err := (&container{Container: made, p: p}).execEdited(func(process *specs.Process) {
			edit(process)
			process.Args = []string{"probe", "once"}
		})
		if err != nil {
			return nil, err
		}
		found[name] = probe.Read(out, false, made.ID, "ID")
	}
	return found, made.Remove(p.h.ctx)
}

// What a workload can find out about itself is what it would be without us, but for the filter: who it is, what it may, its limits,
// its environment. Whatever the pod asks for, and although a launcher is lent capabilities, as a container's first process and as
// an exec session. Kata alone loses much of what is asked for a session, so there a session is compared with what it asks for,
// beside what the first process has.
func TestStatusIsTheDelegates(t *testing.T) {
	const image = "stand.test/probe:1"
	eachVersion(t, func(t *testing.T, h *harness) {
		path := filepath.Join(t.TempDir(), "probe")
		if err := probe.Build(path); err != nil {
			t.Fatal(err)
		}
		if err := h.AddImage(image, stand.Image{Files: stand.NewFiles().Host("/bin/probe", path)}); err != nil {
			t.Fatal(err)
		}
		// The two sides at once, each in one pod.
		pods := []*pod{
			h.pod(stand.PodConfig{Name: "same"}),
			h.pod(stand.PodConfig{Name: "same", Handler: tuned, Annotations: map[string]string{"metsuke.dev/profile": "inherits"}}),
		}
		all := cells()
		if delegate == stand.Kata {
			// Every other one for each version: a container takes seconds in an emulated guest.
			kept := all[:0]
			for i := slices.Index(stand.Versions, h.Version); i < len(all); i += len(stand.Versions) {
				kept = append(kept, all[i])
			}
			all = kept
		}
		reports, problems := make([][]seen, len(pods)), make([]error, len(pods))
		var sides sync.WaitGroup
		for i, p := range pods {
			sides.Go(func() {
				for number, c := range all {
					found, err := p.look(number, c, image)
					if err != nil {
						problems[i] = fmt.Errorf("%s: %s: %w", p.handler, c, err)
						return
					}
					reports[i] = append(reports[i], found)
				}
			})
		}
		sides.Wait()
		if err := errors.Join(problems...); err != nil {
			t.Fatal(err)
		}
		bounding := map[string]string{}
		for number, c := range all {
			alone, ours := reports[0][number], reports[1][number]
			for process, want := range c.expected(alone) {
				got := ours[process]
				if delegate == stand.Kata && process != "init" {
					got = commonTo(got, want)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s (-want +got):\n%s", c, process, diff)
				}
			}
			// The cell is what it is called.
			init := ours["init"]
			bounding[init["status.CapBnd"]] = c.capabilities
			if uid := fmt.Sprintf(`%[1]d\011%[1]d\011%[1]d\011%[1]d`, c.uid); init["status.Uid"] != uid || init["status.NoNewPrivs"] != flag(c.nnp) ||
				(init["status.CapBnd"] == "0000000000000000") != (c.capabilities == "dropped") || init["cwd"] != "/var/run" {
				t.Errorf("%s: %v", c, init)
			}
		}
		if len(bounding) != 3 {
			t.Errorf("bounding sets of default, added and dropped capabilities: %v", bounding)
		}
	})
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// asked are the lines of a report that the process of a specification decides, but for their prefix.
var asked = []string{
	"status.Uid", "status.Gid", "status.Groups", "status.Cap", "status.NoNewPrivs", "status.Seccomp", "rlimit.", "env.", "cwd", "umask",
	"securebits", "keepcaps", "dumpable", "nice", "keyring-joined", "arg.0", "auxv.", "execfn", "/proc/self/oom_score_adj",
}

// expected is what the cell's processes must report, by what they do under the delegate alone.
func (c cell) expected(alone seen) seen {
	want := maps.Clone(alone)
	if delegate == stand.Kata {
		first := map[string]string{}
		for name, value := range alone["init"] {
			for _, prefix := range asked {
				if strings.HasPrefix(name, prefix) {
					first[name] = value
				}
			}
		}
		want["exec"], want["exec with limits of its own"] = first, maps.Clone(first)
		maps.Copy(want["exec with limits of its own"], map[string]string{
			"rlimit.7": "777 888", "rlimit.4": "0 4096", "/proc/self/oom_score_adj": "300\\012", "status.NoNewPrivs": flag(!c.nnp),
		})
	}
	for process := range want {
		want[process] = maps.Clone(want[process])
		// Kata alone drops the pod's filter. keyctl is the call of the probe's that it denies.
		want[process]["status.Seccomp"], want[process]["status.Seccomp_filters"] = "2", "1"
		if c.filtered {
			want[process]["keyring-joined"] = "0"
		}
	}
	return want
}

// commonTo are the lines of a report that another has too.
func commonTo(report, other map[string]string) map[string]string {
	kept := map[string]string{}
	for name := range other {
		if value, ok := report[name]; ok {
			kept[name] = value
		}
	}
	return kept
}
