// SPDX-License-Identifier: Apache-2.0

// Command vmm runs the machines of Kata's pods where Kata's own hypervisors cannot: without KVM and without vhost-vsock.
//
// Kata's shim asks it for machines through its driver `hypervisor.remote`, which is made for machines in a cloud
// ("peer pods"): the ttrpc service hypervisor.Hypervisor on a unix socket. A machine is QEMU with the kernel and the initial
// file system that are given, whose process 1 is the agent, and with the shim's directory of root file systems shared by
// virtiofs. (Real peer pods share nothing: they pull images in the guest. The shim believes that this one does not share either.)
//
// It runs until SIGTERM or SIGINT, and takes its machines with it, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// options say where things are.
type options struct {
	dir            string // the socket "hypervisor.sock", and a directory for each machine, by its ID
	logs           string // ID.console of each machine: kept
	kernel, initrd string
	accel          string        // QEMU's accelerator
	patience       time.Duration // for a boot
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "`directory` for the socket hypervisor.sock and for machines; short, it holds unix sockets")
	flag.StringVar(&o.logs, "logs", "", "`directory` for the consoles of machines")
	flag.StringVar(&o.kernel, "kernel", "", "the guest's kernel, a `file`")
	flag.StringVar(&o.initrd, "initrd", "", "the guest's initial file system, a `file`")
	flag.StringVar(&o.accel, "accel", "tcg", "QEMU's `accelerator`: tcg or kvm")
	// A machine that hangs at boot says nothing for ever. One that is slow is not to be taken for that, so this is long.
	flag.DurationVar(&o.patience, "patience", time.Minute, "`time` after which a machine whose agent is silent is booted again, once")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	for _, dir := range []string{o.dir, o.logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	socket := filepath.Join(o.dir, "hypervisor.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	d := newDaemon(o)
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	err = d.serve(ctx, listener)
	d.stopAll()
	return errors.Join(err, os.RemoveAll(o.dir))
}
