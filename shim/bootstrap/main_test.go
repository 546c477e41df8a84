// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// The test binary plays three parts: the tests, which are containerd; the shim, with a service that changes nothing;
// and, under another name because a delegate must be another file, the delegate.
const (
	roleEnv      = "METSUKE_TEST_SHIM"
	stateEnv     = "METSUKE_TEST_STATE"
	delegateEnv  = "METSUKE_TEST_DELEGATE"
	lossEnv      = "METSUKE_TEST_LOSSES"
	fakeDelegate = "containerd-shim-fake-v2"
)

// fakeBinary is a copy of the test binary under the delegate's name.
var fakeBinary string

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == fakeDelegate:
		os.Exit(fakeMain())
	case os.Getenv(roleEnv) != "":
		os.Exit(passThrough().Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "metsuke-bootstrap-")
	if err == nil {
		defer os.RemoveAll(dir)
		fakeBinary = filepath.Join(dir, fakeDelegate)
		err = copySelf(fakeBinary)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func copySelf(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// passThrough is a shim that hands every call on, Create and Shutdown by way of a handler.
func passThrough() Program {
	return Program{
		Version: "test",
		Configure: func(string) (Settings, error) {
			return Settings{
				StateDir: os.Getenv(stateEnv),
				Delegate: delegate.Config{Binary: os.Getenv(delegateEnv), RuntimeType: delegate.RuncType},
			}, nil
		},
		Serve: func(_ context.Context, pod *Pod) (*Service, error) {
			return &Service{
				Intercept: func(c *proxy.Call) proxy.Handler {
					if c.Method != "Create" && c.Method != "Shutdown" {
						return nil
					}
					return func(ctx context.Context, c *proxy.Call, next proxy.Next) ([]byte, error) {
						return next(ctx, c.Payload)
					}
				},
				Event: func(topic string, _ *anypb.Any) bool { return topic != "/hidden" },
			}, nil
		},
		Delete: func(_ context.Context, d *Deletion) error {
			f, err := os.OpenFile(os.Getenv(lossEnv), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(f, "%s alive=%v lost=%v\n", d.ID, d.ShimAlive, d.Lost)
			return errors.Join(err, f.Close())
		},
	}
}
