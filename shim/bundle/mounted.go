// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"

	"metsuke.dev/metsuke/guest/private"
)

// privateMode are the permissions of [Private]: to be searched, not listed.
const privateMode = 0o711

// CheckMounted verifies that a container has what [MountPrivate] asks for: [Private] is the root of a tmpfs mounted
// there, read-only, mode 0711, with the two mount points in it and nothing else, and [Guest] is the helper, the file
// source of the host, mounted read-only. Where a symbolic link is on the way, it fails. root is the
// container's root as the host sees it, /proc/<pid>/root of its init process.
//
// It must pass between the delegate's Create and Start, while nothing of the image runs, and again before each exec: a
// workload that may mount could have mounted something over the helper since, and so could one whose init
// process has moved to a mount namespace of its own, for that is where the delegate starts an exec.
//
// The delegate looks the helper up once more, by name. So for a workload that can change mounts this narrows the race
// and does not end it. Changing them takes CAP_SYS_ADMIN, which every process can have in a user namespace that
// it makes: it is for the profile or the pod's seccomp profile to deny unshare(2) and clone(2) of namespaces, setns(2)
// and mount(2), as the baseline profile does.
//
// It blocks, and needs a kernel, as [private.Name.Check] does.
func CheckMounted(root, source string) error {
	if err := private.Name(Private).Check(root, source, privateMode); err != nil {
		return fmt.Errorf("check the helper in %s: %w", root, err)
	}
	return nil
}
