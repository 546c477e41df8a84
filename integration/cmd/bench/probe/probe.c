// SPDX-License-Identifier: Apache-2.0
//
// What the bench runs in its containers: loops over one system call, timed call by call where a call takes long enough,
// and a bare user-notification loop to compare a supervisor with. Static C, so that nothing else is measured.
//
//   probe calls N BATCHES [FILTER]  getppid N times a batch; with FILTER, under this array of struct sock_filter
//   probe open PATH N               openat and close N times
//   probe notify PATH N             the same, with openat answered by a loop in another process, which reads the path
//   probe load PATH N MS GO         openat and close for N windows of MS milliseconds, once there is a file GO
//
// Each prints numbers, one line: for calls, nanoseconds a call of each batch; for load, how many openat there were, how many of
// them ended in each of the N windows (the last one ends behind them), then the histogram of what those took, "NS COUNT" for each of its
// buckets that is not empty, NS being where it begins; else "TOTAL" (ns) and each openat's ns.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS // Linux 6.6
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // Linux 5.19
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static void die(const char *what) {
	perror(what);
	exit(1);
}

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void load(const char *path) {
	static struct sock_filter code[4096];
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	ssize_t size = read(fd, code, sizeof code);
	close(fd);
	if (size <= 0 || size % sizeof code[0])
		die("filter");
	struct sock_fprog program = {.len = size / sizeof code[0], .filter = code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
		die("seccomp");
}

static int calls(long n, long batches) {
	for (long b = 0; b < batches; b++) {
		uint64_t begin = now();
		for (long i = 0; i < n; i++)
			syscall(SYS_getppid);
		printf("%.2f ", (double)(now() - begin) / (double)n);
	}
	puts("");
	return 0;
}

static int opens(const char *path, long n) {
	uint32_t *took = malloc(sizeof *took * (size_t)n);
	if (!took)
		die("malloc");
	uint64_t begin = now(), end = begin;
	for (long i = 0; i < n; i++) {
		uint64_t from = end;
		int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
		end = now();
		if (fd < 0)
			die(path);
		took[i] = (uint32_t)(end - from);
		close(fd);
		end = now();
	}
	printf("%llu", (unsigned long long)(end - begin));
	for (long i = 0; i < n; i++)
		printf(" %u", took[i]);
	puts("");
	return 0;
}

// The buckets of a histogram have a width of a 32nd of where they begin, or of 1 ns.
enum { PARTS = 32, BUCKETS = 64 * PARTS };

static int bucket(uint64_t ns) {
	if (ns < PARTS)
		return (int)ns;
	int shift = 58 - __builtin_clzll(ns);
	return (shift + 1) * PARTS + (int)(ns >> shift) - PARTS;
}

static uint64_t lowest(int bucket) {
	if (bucket < PARTS)
		return (uint64_t)bucket;
	return (uint64_t)(bucket % PARTS + PARTS) << (bucket / PARTS - 1);
}

static int load_for(const char *path, long windows, uint64_t width, const char *go) {
	static uint64_t took[BUCKETS], ended[1000];
	if (windows < 1 || windows > (long)(sizeof ended / sizeof ended[0]))
		die("windows");
	while (access(go, F_OK)) // unlike openat it is not audited
		usleep(5000);
	uint64_t begin = now(), end = begin, calls = 0;
	for (;;) {
		uint64_t from = end;
		int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
		end = now();
		if (fd < 0)
			die(path);
		calls++;
		uint64_t window = (end - begin) / width;
		if (window < (uint64_t)windows) {
			took[bucket(end - from)]++;
			ended[window]++;
		}
		close(fd);
		if (window >= (uint64_t)windows)
			break;
		end = now();
	}
	printf("%llu ", (unsigned long long)calls);
	for (long i = 0; i < windows; i++)
		printf("%llu ", (unsigned long long)ended[i]);
	for (int i = 0; i < BUCKETS; i++)
		if (took[i])
			printf("%llu %llu ", (unsigned long long)lowest(i), (unsigned long long)took[i]);
	puts("");
	return 0;
}

static void send_fd(int sock, int fd) {
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (sendmsg(sock, &message, 0) != 1)
		die("sendmsg");
}

static int receive_fd(int sock) {
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int fd = -1;
	if (recvmsg(sock, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

static void interrupted(int signal) { (void)signal; }

static int notify(const char *path, long n) {
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		struct sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			die("no_new_privs");
		int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				      SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
		if (fd < 0)
			die("seccomp");
		send_fd(pair[1], fd);
		close(fd);
		exit(opens(path, n));
	}
	close(pair[1]);
	// Kernels before 6.11 do not end a RECV when the last task of the filter ends, but a signal does.
	struct sigaction action = {.sa_handler = interrupted};
	sigaction(SIGCHLD, &action, NULL);
	int listener = receive_fd(pair[0]);
	// Without it (before Linux 6.6) each answer waits for another CPU to wake.
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	for (;;) {
		struct seccomp_notif request = {0};
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) {
			int status;
			if (errno == EINTR && waitpid(child, &status, WNOHANG) == child)
				return status != 0;
			if (errno == EINTR)
				continue;
			break; // ENOENT: the child has ended
		}
		char text[256];
		struct iovec local = {text, sizeof text}, remote = {(void *)(uintptr_t)request.data.args[1], sizeof text};
		process_vm_readv((pid_t)request.pid, &local, 1, &remote, 1, 0);
		struct seccomp_notif_resp answer = {.id = request.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT)
			die("send");
	}
	int status;
	if (waitpid(child, &status, 0) != child || status)
		return 1;
	return 0;
}

int main(int argc, char **argv) {
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);
	if (argc >= 4 && !strcmp(argv[1], "calls")) {
		if (argc > 4)
			load(argv[4]);
		return calls(atol(argv[2]), atol(argv[3]));
	}
	if (argc == 4 && !strcmp(argv[1], "open"))
		return opens(argv[2], atol(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "notify"))
		return notify(argv[2], atol(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "load"))
		return load_for(argv[2], atol(argv[3]), (uint64_t)atol(argv[4]) * 1000000u, argv[5]);
	fputs("usage: see probe.c\n", stderr);
	return 2;
}
