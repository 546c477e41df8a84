// SPDX-License-Identifier: Apache-2.0
// The workloads of the tests: victim MODE [ARG...]. Each prints what it saw of its own calls on one line.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int arg(char **argv, int i) { return argv[i] ? atoi(argv[i]) : 0; }
static int do_open(const char *path) { return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC); }

// open N PATH: opens PATH N times; "ok=<opened> errno=<last>"
static int m_open(char **argv) {
	int ok = 0, last = 0;
	for (int i = 0; i < arg(argv, 0); i++) {
		int fd = do_open(argv[1]);
		if (fd >= 0) ok++, close(fd); else last = errno;
	}
	printf("ok=%d errno=%d\n", ok, last);
	return 0;
}

// crowd N PATH: N children open PATH at the same time; "ok=<opened>"
static int m_crowd(char **argv) {
	int ok = 0, status;
	for (int i = 0; i < arg(argv, 0); i++)
		if (fork() == 0) _exit(do_open(argv[1]) < 0);
	while (wait(&status) > 0) ok += status == 0;
	printf("ok=%d\n", ok);
	return 0;
}

// deny N: calls getppid N times; "denied=<n> errno=<last>"
static int m_deny(char **argv) {
	int denied = 0, last = 0;
	for (int i = 0; i < arg(argv, 0); i++)
		if (syscall(SYS_getppid) < 0) denied++, last = errno;
	printf("denied=%d errno=%d\n", denied, last);
	return 0;
}

static int m_ptrace(char **argv) {
	(void)argv;
	long r = ptrace(PTRACE_TRACEME, 0, 0, 0);
	printf("ret=%ld errno=%d\n", r, r < 0 ? errno : 0);
	return 0;
}

// killed: a child makes the call that is killed; "signal=<n>"
static int m_killed(char **argv) {
	(void)argv;
	int status, pid = fork();
	if (pid == 0) { syscall(SYS_getppid); _exit(7); }
	waitpid(pid, &status, 0);
	printf("signal=%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	return 0;
}

// thread-killed: a thread of a child does, and the others must die too
static void *t_getppid(void *p) { syscall(SYS_getppid); return p; }
static int m_thread_killed(char **argv) {
	(void)argv;
	int status, pid = fork();
	if (pid == 0) {
		pthread_t t;
		pthread_create(&t, NULL, t_getppid, NULL);
		pthread_join(t, NULL);
		_exit(7);
	}
	waitpid(pid, &status, 0);
	printf("signal=%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	return 0;
}

// threadexec N PATH: opens PATH as leader, then a thread execs "open N PATH" while the leader opens on
static char **exec_argv;
static void *t_exec(void *p) {
	(void)p;
	char *args[] = {"after-exec", "open", exec_argv[0], exec_argv[1], NULL};
	prctl(PR_SET_NAME, "execer");
	execv("/proc/self/exe", args);
	return NULL;
}
static int m_threadexec(char **argv) {
	exec_argv = argv;
	pthread_t t;
	close(do_open(argv[1]));
	pthread_create(&t, NULL, t_exec, NULL);
	for (;;) close(do_open(argv[1]));
	return 0;
}

// forkstorm N DIR: N children, each with a name that it inherits, open DIR/<name>; nothing else tells of a change
static int m_forkstorm(char **argv) {
	int bad = 0;
	for (int i = 0; i < arg(argv, 0); i++) {
		char path[256], name[16];
		snprintf(name, sizeof name, "v%d", i);
		snprintf(path, sizeof path, "%s/%s", argv[1], name);
		prctl(PR_SET_NAME, name);
		int status, pid = fork();
		if (pid == 0) { do_open(path); _exit(0); }
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status) bad++;
	}
	printf("bad=%d\n", bad);
	return 0;
}

// threadstorm N DIR: the same with threads
static void *t_open(void *p) { do_open(p); return NULL; }
static int m_threadstorm(char **argv) {
	int bad = 0;
	for (int i = 0; i < arg(argv, 0); i++) {
		char path[256], name[16];
		snprintf(name, sizeof name, "t%d", i);
		snprintf(path, sizeof path, "%s/%s", argv[1], name);
		prctl(PR_SET_NAME, name);
		pthread_t t;
		int tries = 0; // a joined thread gives its number back a little later
		while (pthread_create(&t, NULL, t_open, path) && ++tries < 10000) usleep(100);
		if (tries == 10000) bad++; else pthread_join(t, NULL);
	}
	printf("bad=%d\n", bad);
	return 0;
}

// signals N PATH: opens under a 1 kHz timer
static volatile int ticks;
static void on_alarm(int s) { (void)s; ticks++; }
static int m_signals(char **argv) {
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &sa, NULL);
	struct itimerval it = {{0, 1000}, {0, 1000}};
	setitimer(ITIMER_REAL, &it, NULL);
	int ok = 0;
	for (int i = 0; i < arg(argv, 0); i++) {
		int fd = do_open(argv[1]);
		if (fd >= 0) ok++, close(fd);
	}
	printf("ok=%d ticks=%d\n", ok, ticks > 0);
	return 0;
}

// identity PATH: opens as it is, then with another name, another uid, as child of init
static int m_identity(char **argv) {
	close(do_open(argv[0]));
	prctl(PR_SET_NAME, "back\\sl\nash");
	close(do_open(argv[0]));
	syscall(SYS_setresgid, 1235, 1235, 1235);
	syscall(SYS_setresuid, 1234, 1234, 1234);
	int fd = do_open(argv[0]);
	printf("ok=%d\n", fd >= 0);
	return 0;
}

// exec-hostile: execs with pointers that lead nowhere, then one with very many words
static int m_exec_hostile(char **argv) {
	(void)argv;
	char *bad[] = {"fine", (char *)0xdead000, "never", NULL};
	char **many = calloc(10001, sizeof *many);
	char *large = malloc(100001);
	memset(large, '\'', 100000), large[100000] = 0;
	for (int i = 0; i < 10000; i++) many[i] = large;
	syscall(SYS_execve, "/nowhere", bad, NULL);
	syscall(SYS_execve, "/nowhere", (char **)0xdead000, NULL);
	syscall(SYS_execve, "/nowhere", (char **)0xffffffffffffffff, NULL);
	syscall(SYS_execve, "/nowhere", NULL, NULL);
	syscall(SYS_execve, (char *)0xdead000, bad, NULL);
	syscall(SYS_execve, large, many, NULL);
	char *quoting[] = {"a b", "it's", "", "\xff\xfe", "plain-word", NULL};
	syscall(SYS_execve, "/nowhere", quoting, NULL);
	printf("done\n");
	return 0;
}

// edge: paths at the end of a mapping, with and without their end
static int m_edge(char **argv) {
	(void)argv;
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p + 4096, 4096);
	memset(p, 'x', 4096);
	strcpy(p + 4096 - 5, "/end");
	do_open(p + 4096 - 5);
	memcpy(p + 4096 - 6, "/noend", 6);
	do_open(p + 4096 - 6);
	do_open(p + 4096);
	do_open(NULL);
	printf("done\n");
	return 0;
}

// connect: one of each family that there is
static int m_connect(char **argv) {
	(void)argv;
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/nowhere.sock"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	connect(fd, (void *)&in, sizeof in);
	struct msghdr msg = {.msg_name = &in, .msg_namelen = sizeof in};
	sendmsg(fd, &msg, MSG_NOSIGNAL);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	connect(fd, (void *)&un, sizeof un);
	un.sun_path[0] = 0;
	connect(fd, (void *)&un, offsetof(struct sockaddr_un, sun_path) + 8);
	connect(fd, (void *)0xdead000, sizeof un);
	printf("done\n");
	return 0;
}

// fault: opens a path whose page never comes; prints a line before it
static int m_fault(char **argv) {
	(void)argv;
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API};
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(unsigned long)p, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) { printf("no userfaultfd: %d\n", errno); return 1; }
	printf("ready\n"), fflush(stdout);
	do_open(p);
	return 0;
}

// wait: until stdin ends
static int m_wait(char **argv) {
	char c;
	printf("ready\n"), fflush(stdout);
	while (read(0, &c, 1) > 0) ;
	return m_open(argv);
}

// keys N: denied calls of many numbers
static int m_keys(char **argv) {
	int denied = 0;
	for (int i = 0; i < arg(argv, 0); i++)
		for (int nr = 0; nr < 20; nr++)
			if (syscall(SYS_keyctl, nr, 0, 0, 0, 0) < 0) denied++;
	printf("denied=%d\n", denied);
	return 0;
}

static int cmp(const void *a, const void *b) {
	unsigned long x = *(unsigned long *)a, y = *(unsigned long *)b;
	return (x > y) - (x < y);
}
static unsigned long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ul + t.tv_nsec;
}

// bench N PATH: "p50=<ns> p99=<ns> mean=<ns>" of one open, its close left out of all but the mean
static int m_bench(char **argv) {
	int n = arg(argv, 0);
	unsigned long *took = calloc(n, sizeof *took), first = now();
	for (int i = 0; i < n; i++) {
		unsigned long t = now();
		int fd = do_open(argv[1]);
		took[i] = now() - t;
		close(fd);
	}
	unsigned long all = now() - first;
	qsort(took, n, sizeof *took, cmp);
	printf("p50=%lu p99=%lu mean=%lu\n", took[n / 2], took[n * 99l / 100], all / n);
	return 0;
}

// serve FD: the least that a supervisor can do: receive, read the path, answer
static int m_serve(char **argv) {
	int l = arg(argv, 0);
	ioctl(l, _IOW('!', 4, __u64), 1ul); // SYNC_WAKE_UP
	for (;;) {
		struct seccomp_notif req = {0};
		if (ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &req)) {
			struct pollfd p = {l, POLLIN, 0};
			if (errno == ENOENT && poll(&p, 1, 0) >= 0 && p.revents & POLLHUP) return 0;
			if (errno == ENOENT || errno == EINTR) continue;
			return 1;
		}
		char buf[256];
		struct iovec lo = {buf, sizeof buf}, re = {(void *)req.data.args[1], sizeof buf};
		process_vm_readv(req.pid, &lo, 1, &re, 1, 0);
		struct seccomp_notif_resp resp = {.id = req.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &resp);
	}
}

int main(int argc, char **argv) {
	static const struct { const char *name; int (*run)(char **); } modes[] = {
		{"open", m_open}, {"crowd", m_crowd}, {"deny", m_deny}, {"ptrace", m_ptrace}, {"killed", m_killed}, {"thread-killed", m_thread_killed},
		{"threadexec", m_threadexec}, {"forkstorm", m_forkstorm}, {"threadstorm", m_threadstorm}, {"signals", m_signals},
		{"identity", m_identity}, {"exec-hostile", m_exec_hostile}, {"edge", m_edge}, {"connect", m_connect},
		{"fault", m_fault}, {"wait", m_wait}, {"keys", m_keys}, {"bench", m_bench}, {"serve", m_serve},
	};
	for (unsigned i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
		if (!strcmp(argv[1], modes[i].name)) return modes[i].run(argv + 2);
	fprintf(stderr, "victim: no such mode\n");
	return 2;
}
