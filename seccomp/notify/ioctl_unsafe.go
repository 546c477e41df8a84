// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From <linux/seccomp.h>; the numbers are the same on every architecture with the generic ioctl encoding, which
// amd64 and arm64 have.
const (
	ioctlRecv     = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV, _IOWR('!', 0, struct seccomp_notif)
	ioctlSend     = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND, _IOWR('!', 1, struct seccomp_notif_resp)
	ioctlIDValid  = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID, _IOW('!', 2, __u64)
	ioctlSetFlags = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS, _IOW('!', 4, __u64)
)

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// The ioctl numbers above carry these sizes.
var (
	_ [80]byte = [unsafe.Sizeof(Request{})]byte{}
	_ [24]byte = [unsafe.Sizeof(response{})]byte{}
)

// checkSizes asks the kernel, once, for the sizes of its structures: a larger one would be written past ours.
var checkSizes = sync.OnceValue(func() error {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return fmt.Errorf("seccomp(SECCOMP_GET_NOTIF_SIZES): %w (user notification needs Linux 5.5 or newer)", errno)
	}
	if uintptr(sizes.notif) > unsafe.Sizeof(Request{}) || uintptr(sizes.resp) > unsafe.Sizeof(response{}) {
		return fmt.Errorf("this kernel's seccomp notification is %d bytes and its answer %d, we know %d and %d: a newer Metsuke is needed",
			sizes.notif, sizes.resp, unsafe.Sizeof(Request{}), unsafe.Sizeof(response{}))
	}
	return nil
})

// receive may block, so the scheduler must know of it: a RawSyscall here makes the garbage collector wait for ever.
func receive(fd int, r *Request) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlRecv, uintptr(unsafe.Pointer(r)))
	return errno
}

// send, idValid and setFlags never block, and the scheduler's part would be a good share of their cost.
func send(fd int, id uint64, resp Response) unix.Errno {
	raw := response{id: id, val: resp.Val, error: resp.Error}
	if resp.Continue {
		raw.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&raw)))
	return errno
}

func idValid(fd int, id uint64) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), ioctlIDValid, uintptr(unsafe.Pointer(&id)))
	return errno
}

// setFlags takes its flags by value.
func setFlags(fd int, flags uint64) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, uintptr(flags))
	return errno
}
