// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/profile"
)

// What canaries are called. Namespaces of Kubernetes may have the name too: what we remove, we find by a UID that we made.
const (
	CanaryNamespace = "metsuke-doctor"
	canaryName      = "canary"
)

// A canary is tried again when somebody else has removed it: a kubelet does so, every two seconds, with each ready sandbox whose UID is no
// pod's of its own (HandlePodCleanups in pkg/kubelet of 1.34); no label keeps it from that. The next try begins right after, and so has
// most of two seconds. With three tries, one canary of 30 was in vain on a machine with 13 times as many runnable tasks as CPUs.
const canaryTries = 5

const (
	canaryTime  = 2 * time.Minute  // for one try: a VM may take its time
	removalTime = 30 * time.Second // for removing it, however the try has ended
)

func checkCanary(ctx context.Context, s *survey) (found []Finding) {
	if s.CRI == nil || s.handlersErr != nil {
		return []Finding{skip("no pod can be started: see the check containerd")}
	}
	for _, h := range s.handlers {
		found = append(found, s.judgeCanary(ctx, h).of(h.name))
	}
	if len(found) == 0 {
		return []Finding{skip("no handler of Metsuke's is in force")}
	}
	return found
}

// errInterrupted says that the canary was gone before its receipt was there.
var errInterrupted = errors.New("somebody else has removed it")

func (s *survey) judgeCanary(ctx context.Context, h handler) Finding {
	const breaks = "pods of this handler do not start"
	if h.setup.config == nil {
		return skip("its configuration cannot be read: see the check config")
	}
	var err error
	for range canaryTries {
		var found Finding
		if found, err = s.tryCanary(ctx, h); err == nil {
			return found
		}
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	switch {
	case errors.Is(err, errInterrupted) && s.kubelet():
		return warn(fmt.Sprintf("the kubelet has removed the canary %d times before its receipt was there: %v", canaryTries, err),
			"nothing was found out", "start a pod with this handler's RuntimeClass, and read its receipt: metsuke audit tail -n all --kind start POD")
	case errors.Is(err, errInterrupted):
		return fail(fmt.Sprintf("the canary was gone %d times before its receipt was there: %v", canaryTries, err), breaks,
			"look for what ended it: journalctl -u containerd")
	}
	return fail(err.Error(), breaks, "what the error names; docs/node-guide.md, When a pod does not start, says what to look at")
}

// tryCanary runs one canary and removes it, whatever came of it.
func (s *survey) tryCanary(ctx context.Context, h handler) (found Finding, err error) {
	c := &canary{survey: s, handler: h, pod: cri.PodConfig{
		Namespace: CanaryNamespace, Name: canaryName, UID: newUID(), Handler: h.name,
		HostNetwork: !h.setup.traits().Sandboxed, // a VM has a network of its own
	}}
	switch r := h.setup.config.Delegate.Runc; {
	case r == nil:
	case r.SystemdCgroup:
		c.pod.CgroupParent = "system.slice"
	default:
		c.pod.CgroupParent = "/" // left out, it is a cgroup that stays behind
	}
	defer func() { err = errors.Join(err, c.remove(ctx)) }()
	ctx, cancel := context.WithTimeout(ctx, canaryTime)
	defer cancel()
	return c.run(ctx)
}

type canary struct {
	*survey
	handler handler
	pod     cri.PodConfig
}

func (c *canary) run(ctx context.Context) (Finding, error) {
	id, err := c.CRI.RunPod(ctx, c.pod)
	if err != nil {
		return Finding{}, err
	}
	image, err := c.CRI.PodImage(ctx, id)
	if err == nil {
		err = c.CRI.RunContainer(ctx, id, c.pod, canaryName, image)
	}
	if err != nil {
		return Finding{}, c.explain(ctx, err)
	}
	want, err := c.promise(image)
	if err != nil {
		return Finding{}, err
	}
	if want.Passthrough {
		return ok("started; under %s, which promises nothing, in namespace %s", want.Name, CanaryNamespace), nil
	}
	got, err := c.receipt()
	if err != nil {
		return Finding{}, err
	}
	different, err := c.compare(got, want)
	if err != nil {
		return Finding{}, err
	}
	if len(different) > 0 {
		return fail(fmt.Sprintf("the receipt is not what %s promises: %v", want.Name, errors.Join(different...)),
			"pods of this handler are not held as their profile says", "report it, with this text: it must not be possible"), nil
	}
	return ok("started; its receipt is what %s promises", want.Name), nil
}

// explain says whether an error is that of a pod which somebody else has removed.
func (c *canary) explain(ctx context.Context, err error) error {
	pods, listErr := c.CRI.Pods(ctx)
	if listErr != nil {
		return err
	}
	for _, p := range pods {
		if c.is(p) && p.Ready {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errInterrupted, err)
}

func (c *canary) is(p cri.Pod) bool { return p.Namespace == CanaryNamespace && p.UID == c.pod.UID }

// promise is the profile that the canary's container gets.
func (c *canary) promise(image string) (*profile.Resolved, error) {
	set, err := c.profiles(c.handler.setup)
	if err != nil {
		return nil, err
	}
	cfg := c.handler.setup.config
	r, _, err := set.Choose(profile.Pod{Namespace: CanaryNamespace, Container: canaryName, Image: image},
		profile.Defaults{Profile: cfg.DefaultProfile, Floor: cfg.Floor})
	return r, err
}

// dir is the canary's part of the audit directory.
func (c *canary) dir() string {
	return path.Join(c.handler.setup.config.Directories.Audit, stream.PodName(c.pod.Namespace, c.pod.Name, c.pod.UID))
}

// receipt reads the start record, which is written before StartContainer returns.
func (c *canary) receipt() (*record.Record, error) {
	dir, release, err := c.Tree.Reach(path.Join(c.dir(), stream.ContainerName(canaryName)))
	if err != nil {
		return nil, fmt.Errorf("it runs, and has no stream: %w", err)
	}
	defer release()
	r, err := segment.OpenReader(dir, 1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it runs, and its stream has no receipt")
		}
		if err != nil {
			return nil, err
		}
		rec, err := record.Parse(line)
		if err != nil {
			return nil, err
		}
		if rec.Event.Kind == audit.KindStart {
			return rec, nil
		}
	}
}

// remove removes the pod and its stream, which says nothing of a workload.
func (c *canary) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalTime)
	defer cancel()
	if err := c.CRI.RemovePods(ctx, c.is); err != nil {
		return fmt.Errorf("the canary is still there: %w", err)
	}
	if err := c.Tree.RemoveAll(c.dir()); err != nil {
		return fmt.Errorf("the canary's stream is still there: %w", err)
	}
	return nil
}

// newUID is a UID in Kubernetes' form.
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// kubelet says whether one runs on the node.
func (s *survey) kubelet() bool {
	entries, err := s.Tree.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		name, err := s.Tree.ReadFile("/proc/" + e.Name() + "/comm")
		if err == nil && string(name) == "kubelet\n" {
			return true
		}
	}
	return false
}
