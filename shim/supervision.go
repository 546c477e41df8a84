// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// A supervision is the supervisor of one container, in whichever place it runs: in this process ([hosted]) or in the
// container ([inGuest]). Its methods may be called concurrently.
type supervision interface {
	// expect registers a launch, which presents the token. p is not kept.
	expect(exec, token string, p *plan.Plan) (expected, error)
	// created is told the init process that the delegate has made, and its launch.
	created(pid int, init expected) error
	// checkHelper verifies that an exec session would run the helper.
	checkHelper(ctx context.Context) error
	// canControl fails if control could not do its part, where the delegate lifts limits with each update.
	canControl(ctx context.Context, r *specs.LinuxResources) error
	// control puts in force what the delegate leaves to us of an update, and returns what is in force then; nil where
	// the node's own files tell. Where limits are lifted until it has done so, its failing ends the supervision.
	control(ctx context.Context, r *specs.LinuxResources) ([]cgroups.Found, error)
	// killed counts the processes that a rule has killed.
	killed() uint64
	// stalls counts the audited calls that had to wait because the stream could not be written.
	stalls() uint64
	// tasks is how many of the container's tasks are the supervisor's own.
	tasks() uint64
	// exited is told that the supervisor's own process has ended.
	exited(status uint32)
	// drain waits until the container's last events are written, for drainGrace at most.
	drain()
	// close ends the supervision: what its processes still call and what would be notified gets ENOSYS.
	close() error
}

// An expected is a launch that is registered and has not become the workload.
type expected interface {
	// started is told that the delegate has started the launcher, and the pid that it gave it.
	started(ctx context.Context, pid int) error
	// await blocks until the launcher stands still under its filter. Whatever it returns, the token is void.
	await(ctx context.Context) (standing, error)
	cancel()
}

// A standing is a launcher that stands still under its filter, one step before the workload.
type standing interface {
	found() inForce
	// arm lets it become the workload and waits until it has. After an error the caller kills the process.
	arm(ctx context.Context) error
	// abandon gives it up if it is not armed: it exits then.
	abandon()
}

// inForce is what the kernel says of a launcher that stands under its filter.
type inForce struct {
	pid    int // in the pid namespace of the supervisor
	status rendezvous.Status
	kernel string          // release of the kernel that it runs on
	limits []cgroups.Found // what is in force for it; nil where the node's own files tell
}
