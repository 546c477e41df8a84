// SPDX-License-Identifier: Apache-2.0
// The workload of the tests: reads commands from its stdin, a line each, and answers each with a line. Most answers are
// the errno of what was tried, 0 if it went well. With arguments, they are the one command.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *args[64]; // of the command, NULL at the end
static const char *text(int i) { return args[i] ? args[i] : ""; }
static long number(int i) { return atol(text(i)); }
static int result(long r) { return r < 0 ? errno : 0; }
static void say(int value) { printf("%d\n", value); }

static int open_at(const char *path) { return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC); }

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

// opens N PATH: "<how many could be opened> <last errno>"
static void c_opens(void) {
	int ok = 0, last = 0;
	for (int i = 0; i < number(1); i++) {
		int fd = open_at(text(2));
		if (fd >= 0) ok++, close(fd); else last = errno;
	}
	printf("%d %d\n", ok, last);
}

// deny N: "<how often getppid was denied> <last errno>"
static void c_deny(void) {
	int denied = 0, last = 0;
	for (int i = 0; i < number(1); i++)
		if (syscall(SYS_getppid) < 0) denied++, last = errno;
	printf("%d %d\n", denied, last);
}

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

// bench N PATH: "<p50> <p99> <mean>" of opening and closing, in microseconds
static void c_bench(void) {
	int n = number(1);
	double *took = malloc(n * sizeof *took), sum = 0;
	for (int i = 0; i < n; i++) {
		double began = now();
		int fd = open_at(text(2));
		if (fd >= 0) close(fd);
		sum += took[i] = now() - began;
	}
	qsort(took, n, sizeof *took, ascending);
	printf("%.1f %.1f %.1f\n", took[n / 2], took[n * 99 / 100], sum / n);
	free(took);
}

// killed: personality(2) in a child, which a rule kills; "<signal that ended it>"
static void c_killed(void) {
	int status, pid = fork();
	if (pid == 0) { syscall(SYS_personality, 0xffffffff); _exit(7); }
	waitpid(pid, &status, 0);
	say(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

// killself: the same in this process
static void c_killself(void) { say(result(syscall(SYS_personality, 0xffffffff))); }

static void c_kill(void) { say(result(kill(number(1), number(2)))); }

// queue PID SIGNAL: a signal that says of itself that it was queued
static void c_queue(void) {
	siginfo_t info = {.si_signo = number(2), .si_code = SI_QUEUE};
	say(result(syscall(SYS_rt_sigqueueinfo, number(1), number(2), &info)));
}

static void c_attach(void) { say(result(ptrace(PTRACE_SEIZE, (pid_t)number(1), 0, 0))); }

// limit PID: takes all descriptors away from a process
static void c_limit(void) {
	struct rlimit none = {0, 0};
	say(result(prlimit(number(1), RLIMIT_NOFILE, &none, NULL)));
}

static void c_rename(void) { say(result(rename(text(1), text(2)))); }
static void c_unlink(void) { say(result(unlink(text(1)))); }
static void c_mkdir(void) { say(result(mkdir(text(1), 0755))); }
static void c_umount(void) { say(result(umount2(text(1), MNT_DETACH))); }
static void c_bind(void) { say(result(mount(text(1), text(2), NULL, MS_BIND, NULL))); }
static void c_mount(void) { say(result(mount(text(1), text(2), text(1), 0, NULL))); }
static void c_remount(void) { say(result(mount(NULL, text(1), NULL, MS_REMOUNT | MS_BIND, NULL))); }
static void c_unshare(void) { say(result(unshare(CLONE_NEWNS))); }
static void c_private(void) { say(result(mount(NULL, text(1), NULL, MS_REC | MS_PRIVATE, NULL))); }
static void c_link(void) { char b[4096]; say(result(readlink(text(1), b, sizeof b))); }
static void c_access(void) { struct stat st; say(result(lstat(text(1), &st))); }

// write PATH TEXT
static void c_write(void) {
	int fd = open(text(1), O_WRONLY | O_CLOEXEC);
	if (fd < 0) { say(errno); return; }
	say(result(write(fd, text(2), strlen(text(2)))));
	close(fd);
}

static int dial(void) {
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/.metsuke/sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) { close(fd); return -1; }
	return fd;
}

// hello VERSION TOKEN: presents the token as a launcher does; "<bytes of the answer>", -1 if there was no connection
static void c_hello(void) {
	const char *token = text(2);
	unsigned char frame[8 + 64] = {'M', 'T', number(1), 1, strlen(token) & 63};
	memcpy(frame + 8, token, strlen(token) & 63);
	int fd = dial();
	if (fd < 0) { say(-1); return; }
	send(fd, frame, 8 + (strlen(token) & 63), MSG_NOSIGNAL); // hung up on already, maybe
	char answer[4096];
	int n = read(fd, answer, sizeof answer);
	say(n < 0 ? 0 : n);
	close(fd);
}

// flood N: N processes that connect and say nothing, for ever; "<N>"
static void c_flood(void) {
	for (int i = 0; i < number(1); i++)
		if (fork() == 0)
			for (int fds[8] = {0}, j = 0;; j = (j + 1) % 8) {
				if (fds[j] > 0) close(fds[j]);
				fds[j] = dial();
			}
	say(number(1));
}

// forks: forks until it cannot, the children stay; "<errno>"
static void c_forks(void) {
	for (int n = 0; n < 100000; n++) {
		int pid = fork();
		if (pid == 0) for (;;) pause();
		if (pid < 0) { say(errno); return; }
	}
	say(0);
}

// run PATH ARGS...: "<exit status, or 128 + signal>"
static void c_run(void) {
	int status, pid = fork();
	if (pid == 0) { execv(text(1), args + 1); _exit(127); }
	waitpid(pid, &status, 0);
	say(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

// exit N
static void c_exit(void) { exit(number(1)); }

static const struct { const char *name; void (*run)(void); } commands[] = {
	{"opens", c_opens}, {"deny", c_deny}, {"bench", c_bench}, {"killed", c_killed}, {"killself", c_killself}, {"kill", c_kill}, {"queue", c_queue},
	{"attach", c_attach}, {"limit", c_limit}, {"rename", c_rename}, {"unlink", c_unlink}, {"mkdir", c_mkdir}, {"umount", c_umount}, {"bind", c_bind},
	{"mount", c_mount}, {"unshare", c_unshare}, {"private", c_private}, {"remount", c_remount}, {"link", c_link}, {"access", c_access}, {"write", c_write}, {"hello", c_hello},
	{"flood", c_flood}, {"forks", c_forks}, {"run", c_run}, {"exit", c_exit},
};

static void run(void) {
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		if (!strcmp(commands[i].name, text(0))) { commands[i].run(); return; }
	printf("no such command\n");
}

int main(int argc, char **argv) {
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1) {
		for (int i = 1; i < argc && i < 63; i++) args[i - 1] = argv[i];
		run();
		return 0;
	}
	char line[65536];
	while (fgets(line, sizeof line, stdin)) {
		int n = 0;
		memset(args, 0, sizeof args);
		for (char *w = strtok(line, " \n"); w && n < 63; w = strtok(NULL, " \n")) args[n++] = w;
		run();
	}
	return 0;
}
