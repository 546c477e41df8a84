// SPDX-License-Identifier: Apache-2.0
//
// A workload that prints all that it can find out about itself, as NAME=VALUE lines and "end" at last.
// It is in C, and static: a Go program changes its limits and signals before main. Arguments: "hold"
// waits for ever after that, "replace" first tries to get rid of what is mounted below /.metsuke.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/keyctl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

static void quoted(const char *s, size_t n) {
	for (size_t i = 0; i < n; i++) {
		unsigned char c = s[i];
		if (c < ' ' || c > '~' || c == '\\')
			printf("\\%03o", c);
		else
			putchar(c);
	}
}

static void string(const char *name, const char *s) {
	printf("%s=", name);
	quoted(s, strlen(s));
	putchar('\n');
}

static void number(const char *name, long n) {
	printf("%s=%ld\n", name, n < 0 ? -errno : n);
}

static void file(const char *path) {
	static char buf[1 << 16];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
	printf("%s=", path);
	if (n < 0)
		printf("errno %d", errno);
	else
		quoted(buf, n);
	putchar('\n');
	if (fd >= 0)
		close(fd);
}

static void status(void) {
	char line[4096];
	FILE *f = fopen("/proc/self/status", "r");
	if (!f) {
		printf("status=errno %d\n", errno);
		return;
	}
	while (fgets(line, sizeof line, f)) {
		char *tab = strchr(line, ':');
		line[strcspn(line, "\n")] = 0;
		if (!tab)
			continue;
		*tab++ = 0;
		printf("status.%s=", line);
		quoted(tab + strspn(tab, " \t"), strlen(tab + strspn(tab, " \t")));
		putchar('\n');
	}
	fclose(f);
}

static void descriptors(void) {
	for (int fd = 0; fd < 1024; fd++) {
		struct stat st;
		char path[64], link[4096];
		if (fstat(fd, &st) < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(path, link, sizeof link);
		printf("fd.%d=mode %o owner %d:%d flags %o fdflags %d link ", fd, st.st_mode, st.st_uid, st.st_gid,
		       fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
		quoted(link, n < 0 ? 0 : n);
		putchar('\n');
	}
}

static void limits(void) {
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit r;
		if (getrlimit(i, &r) == 0)
			printf("rlimit.%d=%lld %lld\n", i, (long long)r.rlim_cur, (long long)r.rlim_max);
	}
}

static void signals(void) {
	for (int i = 1; i < NSIG; i++) {
		struct sigaction sa;
		if (sigaction(i, NULL, &sa) == 0 && sa.sa_handler != SIG_DFL)
			printf("signal.%d=%s\n", i, sa.sa_handler == SIG_IGN ? "ignored" : "caught");
	}
}

static void auxiliary(void) {
	static const unsigned long numbers[] = {AT_SECURE, AT_UID,    AT_EUID,  AT_GID,   AT_EGID,     AT_FLAGS,
	                                        AT_PAGESZ, AT_CLKTCK, AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ, AT_PHNUM};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		printf("auxv.%lu=%lu\n", numbers[i], getauxval(numbers[i]));
	const char *name = (const char *)getauxval(AT_EXECFN);
	string("execfn", name ? name : "(none)");
}

static void process(void) {
	number("pid", getpid());
	number("ppid", getppid());
	number("pgid-is-pid", getpgid(0) == getpid());
	number("sid-is-pid", getsid(0) == getpid());
	mode_t mask = umask(0);
	umask(mask);
	number("umask", mask);
	number("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	number("keepcaps", prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
	number("securebits", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
	number("timerslack", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	int reaper = 0;
	prctl(PR_GET_CHILD_SUBREAPER, &reaper, 0, 0, 0);
	number("subreaper", reaper);
	number("thp-disable", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	number("mce-kill", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
	int death = 0;
	prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0);
	number("pdeathsig", death);
	number("personality", personality(0xffffffff));
	number("scheduler", sched_getscheduler(0));
	struct sched_param param = {0};
	sched_getparam(0, &param);
	number("priority", param.sched_priority);
	number("nice", getpriority(PRIO_PROCESS, 0) + 20);
	number("ioprio", syscall(SYS_ioprio_get, 1, 0));
	number("keyring-joined", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) > 0);
	sigset_t set;
	sigprocmask(SIG_BLOCK, NULL, &set);
	for (int i = 1; i < NSIG; i++)
		if (sigismember(&set, i) == 1)
			printf("blocked.%d=1\n", i);
	cpu_set_t cpus;
	sched_getaffinity(0, sizeof cpus, &cpus);
	number("cpus", CPU_COUNT(&cpus));
	char cwd[4096];
	string("cwd", getcwd(cwd, sizeof cwd) ? cwd : "(none)");
}

static void terminal(void) {
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY);
	number("tty", fd < 0 ? -1 : 1);
	if (fd >= 0) {
		number("tty-foreground", tcgetpgrp(fd) == getpgid(0));
		close(fd);
	}
	struct termios t;
	for (int i = 0; i < 3; i++)
		if (tcgetattr(i, &t) == 0)
			printf("termios.%d=%o %o %o %o\n", i, t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
}

static void replace(void) {
	number("write-guest", open("/.metsuke/guest", O_WRONLY));
	number("unlink-guest", unlink("/.metsuke/guest"));
	number("unlink-sock", unlink("/.metsuke/sock"));
	number("rename-guest", rename("/.metsuke/guest", "/.metsuke/old"));
	number("rename-sock", rename("/.metsuke/sock", "/.metsuke/old"));
	number("create-in-directory", open("/.metsuke/new", O_CREAT | O_WRONLY, 0700));
	number("rmdir-directory", rmdir("/.metsuke"));
	mkdir("/mine", 0755);
	number("exchange-directory", syscall(SYS_renameat2, AT_FDCWD, "/mine", AT_FDCWD, "/.metsuke", RENAME_EXCHANGE));
	number("rename-directory", rename("/.metsuke", "/gone"));
}

int main(int argc, char **argv, char **envp) {
	char name[32];
	static char out[1 << 16];
	setvbuf(stdout, out, _IOFBF, sizeof out);
	for (int i = 0; i < argc; i++) {
		snprintf(name, sizeof name, "arg.%d", i);
		string(name, argv[i]);
	}
	for (int i = 0; envp[i]; i++) {
		snprintf(name, sizeof name, "env.%d", i);
		string(name, envp[i]);
	}
	status();
	descriptors();
	limits();
	signals();
	auxiliary();
	process();
	terminal();
	file("/proc/self/comm");
	file("/proc/self/oom_score_adj");
	file("/proc/self/cgroup");
	file("/proc/self/loginuid");
	file("/proc/self/sessionid");
	file("/proc/self/uid_map");
	file("/proc/self/coredump_filter");
	file("/proc/self/attr/current");
	if (argc > 1 && strcmp(argv[1], "replace") == 0)
		replace();
	printf("end\n");
	fflush(stdout);
	if (argc > 1 && strcmp(argv[1], "hold") == 0)
		for (;;)
			pause();
	return 0;
}
