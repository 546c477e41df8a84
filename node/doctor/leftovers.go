// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/shim/bootstrap"
)

// settled is the age from which on something belongs to no pod that is just being started, and to no doctor that is at work.
const settled = 10 * time.Minute

// criNamespace is containerd's namespace of CRI's pods. Those of others are not CRI's to list.
const criNamespace = "k8s.io"

func checkLeftovers(ctx context.Context, s *survey) []Finding {
	if s.CRI == nil {
		return []Finding{skip("which pods there are is not known: see the check containerd")}
	}
	// The directories first: a pod that is started meanwhile is in the list then.
	states, found := s.states()
	pods, err := s.CRI.Pods(ctx)
	if err != nil {
		return []Finding{skip("which pods there are is not known: %v", err)}
	}
	alive := map[string]bool{}
	for _, p := range pods {
		alive[p.ID] = true
		if s.forgotten(p) {
			found = append(found, warn(fmt.Sprintf("canary %s of a doctor that was killed", p.UID), "it runs until somebody removes it",
				"crictl rmp -f "+p.ID).by(func(ctx context.Context) (string, error) {
				return "removed canary " + p.UID, s.CRI.RemovePods(ctx, func(q cri.Pod) bool { return q.ID == p.ID })
			}))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(states)) {
		st := states[dir]
		if alive[st.ID] {
			continue
		}
		fix := "rm -r " + dir
		if st.Delegate.Process.Alive() {
			fix = fmt.Sprintf("kill -9 %d; %s", st.Delegate.Process.PID, fix)
		}
		found = append(found, warn(fmt.Sprintf("%s is of pod %s, which is gone", dir, st.ID),
			"it takes a little memory until the node reboots",
			fix).at(dir, 0))
	}
	if len(found) == 0 {
		return []Finding{ok("none")}
	}
	return found
}

// forgotten says that a pod is a canary that nobody waits for any more.
func (s *survey) forgotten(p cri.Pod) bool {
	return p.Namespace == CanaryNamespace && p.Name == canaryName && s.Kernel.Now.Sub(p.Created) > settled && s.isHandler(p.Handler)
}

func (s *survey) isHandler(name string) bool {
	h, there := s.inForce[name]
	return there && isOurs(h)
}

// states reads the states of CRI's pods that are old enough, by the paths of their directories.
func (s *survey) states() (states map[string]*bootstrap.State, found []Finding) {
	states = map[string]*bootstrap.State{}
	for _, u := range s.configured() {
		if err := s.statesBelow(u.config.Directories.State, states); err != nil && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, skip("%v", err))
		}
	}
	return states, found
}

func (s *survey) statesBelow(root string, states map[string]*bootstrap.State) error {
	reached, release, err := s.Tree.Reach(root)
	if err != nil {
		return err
	}
	defer release()
	dirs, err := bootstrap.PodDirs(reached)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || s.Kernel.Now.Sub(info.ModTime()) < settled {
			continue
		}
		if st, err := bootstrap.ReadState(dir); err == nil && st.Namespace == criNamespace {
			states[path.Join(root, path.Base(dir))] = st
		}
	}
	return nil
}
