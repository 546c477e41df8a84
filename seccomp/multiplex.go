// SPDX-License-Identifier: Apache-2.0

package seccomp

// socketCalls and ipcCalls are the calls that 32-bit x86 also reaches through socketcall(2) and ipc(2), with the
// number that these take (<linux/net.h>, <linux/ipc.h>). The arguments are then behind a pointer.
var socketCalls = [...]string{
	1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername",
	8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt",
	15: "getsockopt", 16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
}

var ipcCalls = [...]string{
	1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop",
	11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
	21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
}

// multiplexed says through which call, and as which number of it, 32-bit x86 also makes the named call.
func multiplexed(name string) (via string, sub uint32, ok bool) {
	for i, n := range socketCalls {
		if n == name && n != "" {
			return "socketcall", uint32(i), true
		}
	}
	for i, n := range ipcCalls {
		if n == name && n != "" {
			return "ipc", uint32(i), true
		}
	}
	return "", 0, false
}
