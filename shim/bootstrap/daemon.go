// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/shim/events"
	"metsuke.dev/metsuke/shim/proxy"
)

const (
	// flushPatience is how long a dying daemon tries to hand containerd the events that are left.
	flushPatience = 2 * time.Second
	// closePatience is how long the owner's Close may take.
	closePatience = 5 * time.Second
)

// daemon is the long-running process of a pod.
type daemon struct {
	pod     *Pod
	service *Service
	task    net.Listener
	events  net.Listener
	ready   *os.File
}

// serve is the daemon's whole life.
func (p Program) serve(ctx context.Context, inv *invocation) error {
	ready := os.NewFile(fdReady, "ready")
	if ready == nil {
		return errors.New("serve is run by start alone")
	}
	unix.CloseOnExec(fdReady)
	unix.CloseOnExec(fdLock)
	d, err := p.newDaemon(ctx, inv)
	if err != nil {
		fmt.Fprintf(ready, "%s", err)
		return err
	}
	d.ready = ready
	return d.run(ctx)
}

func (p Program) newDaemon(ctx context.Context, inv *invocation) (*daemon, error) {
	st, err := ReadState(inv.podDir)
	if err != nil {
		return nil, err
	}
	setLog(st)
	// 2 MiB pages under a heap of less would cost more than the whole daemon.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	settings, err := p.Configure(st.Config)
	if err != nil {
		return nil, err
	}
	d := &daemon{pod: &Pod{State: *st, Settings: settings}}
	if d.task, err = inherited(fdTask, "task"); err != nil {
		return nil, err
	}
	if d.events, err = inherited(fdEvents, "events"); err != nil {
		return nil, err
	}
	if d.service, err = p.Serve(ctx, d.pod); err != nil {
		return nil, err
	}
	return d, nil
}

// inherited returns the listener that start left on a descriptor.
func inherited(fd uintptr, name string) (net.Listener, error) {
	f := os.NewFile(fd, name)
	if f == nil {
		return nil, fmt.Errorf("no %s socket: serve is run by start alone", name)
	}
	defer f.Close() // the listener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s socket: %w", name, err)
	}
	return l, nil
}

// run serves until the delegate has ended or a signal comes, and leaves nothing.
func (d *daemon) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // standard error is the log, whose reader may be away

	forwarder := events.New(events.Config{Dial: proxy.DialUnix(d.pod.TTRPC), Tap: d.service.Event})
	server := proxy.New(d.proxyConfig())
	ended := make(chan error, 1)
	go func() { ended <- d.pod.Delegate.Wait(ctx) }()
	go serveOn(d.events, "events", forwarder.Serve)
	go serveOn(d.task, "task", server.Serve)
	// A delegate that has died meanwhile fails the start, as it would without us.
	if err := d.probe(ctx); err != nil {
		fmt.Fprintf(d.ready, "%s", err)
		d.end(forwarder, server, EndDelegate)
		return err
	}
	if _, err := d.ready.WriteString(readyWord); err != nil {
		d.end(forwarder, server, EndSignal)
		return fmt.Errorf("start is gone: %w", err)
	}
	d.ready.Close()
	// What starting up has used is not needed again.
	time.AfterFunc(time.Second, debug.FreeOSMemory)

	why := EndDelegate
	select {
	case err := <-ended:
		log.L.WithError(err).Info("the delegate has ended")
	case s := <-signals:
		log.L.WithField("signal", s.String()).Info("ending on a signal")
		why = EndSignal
	}
	d.end(forwarder, server, why)
	return nil
}

func (d *daemon) proxyConfig() proxy.Config {
	cfg := proxy.Config{Dial: d.pod.Dial, Intercept: d.service.Intercept}
	if d.pod.TaskV2 {
		cfg.Rename = map[string]string{"containerd.task.v2.Task": "containerd.task.v3.Task"}
	}
	return cfg
}

func serveOn(l net.Listener, name string, serve func(net.Listener) error) {
	if err := serve(l); err != nil {
		log.L.WithError(err).WithField("socket", name).Error("a socket is no longer served")
	}
}

func (d *daemon) probe(ctx context.Context) error {
	conn, err := d.pod.Dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// end takes leave: first the events, so that containerd has them before it sees the end; then the sockets and the
// connections, on which containerd runs delete; last the owner and the directory. The lock goes with the process.
func (d *daemon) end(forwarder *events.Forwarder, server *proxy.Server, why End) {
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	server.Stop()
	if err := forwarder.Close(ctx); err != nil {
		log.L.WithError(err).Error("events are lost")
	}
	if err := removeSocket(d.pod.Address); err != nil {
		log.L.WithError(err).Warn("cleaning up")
	}
	server.Close()
	if d.service.Close != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		if err := d.service.Close(ctx, why); err != nil {
			log.L.WithError(err).Error("ending")
		}
	}
	if why == EndSignal {
		return // delete finds the delegate by what is in the directory
	}
	if err := errors.Join(removeSocket(d.pod.Delegate.Address), removePodDir(d.pod.Dir)); err != nil {
		log.L.WithError(err).Warn("cleaning up")
	}
}
