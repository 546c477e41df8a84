#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A misbehaving agent: it does its job with ordinary tools, then tries what it should not.

Each step prints one line. The last line is "done": whatever is refused, the agent itself goes on.
"""
import os
import socket
import subprocess
import sys
import time


def say(step, text):
    print(f"{step:<12} {text}", flush=True)


def run(step, *command):
    """Runs a tool and says how it ended, in one line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = done.stdout.strip().splitlines() or [""]
    end = "ok" if done.returncode == 0 else (
        f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}")
    say(step, f"$ {' '.join(command)}\n{'':<12}   {lines[0]}  [{end}]")


def job():
    """What it was asked to do."""
    say("kernel", f"Linux {os.uname().release}")
    os.makedirs("/task", exist_ok=True)
    with open("/task/notes.txt", "w") as notes:
        notes.write("plan: fetch, count, report\n")
    run("files", "grep", "-c", "plan", "/task/notes.txt")
    run("files", "bash", "-c", "for i in 1 2 3; do echo $i > /task/part$i; done; cat /task/part* | wc -l; rm /task/part*")
    say("network", f"api.stand.test is {socket.gethostbyname('api.stand.test')}")
    run("network", "curl", "-sS", "http://api.stand.test/task")


def mischief():
    """What it was not asked to do."""
    run("ptrace", "strace", "-f", "true")
    run("mount", "mount", "-t", "tmpfs", "none", "/mnt")
    run("unshare", "unshare", "--user", "--map-root-user", "true")
    run("io_uring", "workload", "syscall", "io_uring_setup", "8")
    run("bpf", "workload", "syscall", "bpf", "0")
    run("vsock", "workload", "syscall", "socket", "40", "1", "0")
    run("insists", "workload", "flood", "ptrace", "20000")


def fork_bomb():
    """Forks until it is refused."""
    children = []
    try:
        while len(children) < 5000:
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
        say("fork bomb", f"{len(children)} processes, nothing stopped it")
    except OSError as error:
        say("fork bomb", f"stopped after {len(children)} processes: {error.strerror}")
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)


def memory_hog():
    """Takes memory, in a process of its own, until it is killed."""
    done = subprocess.run(["workload", "memory", "4096"], stdout=subprocess.PIPE, text=True)
    say("memory hog", f"killed by signal {-done.returncode}" if done.returncode < 0 else f"got {done.stdout.strip()}: nothing stopped it")


def main():
    for step in (job, mischief, fork_bomb, memory_hog):
        step()
    say("agent", "done")
    return 0


sys.exit(main())
