// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fakeForm says how the fake delegate speaks: "plain" (1.7 and Kata), "json" (2.0 to 2.2), "bootstrap" (2.4: refuses
// the older protocol).
const fakeForm = "METSUKE_TEST_FORM"

// fakeMain is a delegate: it groups by config.json's annotation as runc's shim does, and does nothing to containers.
func fakeMain() int {
	fs := flag.NewFlagSet("fake", flag.ContinueOnError)
	ns := fs.String("namespace", "", "")
	id := fs.String("id", "", "")
	address := fs.String("address", "", "")
	fs.String("publish-binary", "", "")
	bundle := fs.String("bundle", "", "")
	fs.Bool("debug", false, "")
	info := fs.Bool("info", false, "")
	if err := fs.Parse(os.Args[1:]); err != nil {
		return 2
	}
	var err error
	switch {
	case *info:
		in, _ := io.ReadAll(os.Stdin)
		fmt.Printf("info:%x", in)
	case fs.Arg(0) == "start":
		err = fakeStart(*ns, *id, *address)
	case fs.Arg(0) == "delete":
		wd, _ := os.Getwd()
		if wd != *bundle {
			err = fmt.Errorf("cwd %s is not the bundle %s", wd, *bundle)
			break
		}
		out, _ := proto.Marshal(&taskapi.DeleteResponse{Pid: 42, ExitStatus: 137})
		os.Stdout.Write(out)
	default:
		err = fakeServe()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fake: %s", err)
		return 1
	}
	return 0
}

func fakeStart(ns, id, address string) error {
	form := os.Getenv(fakeForm)
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var params bootapi.BootstrapParams
	if form == "bootstrap" && (len(in) == 0 || proto.Unmarshal(in, &params) != nil || params.InstanceID != id) {
		return errors.New("shim was started through the deprecated API but was built against the new API")
	}
	var spec struct{ Annotations map[string]string }
	data, err := os.ReadFile("config.json")
	if err == nil {
		err = json.Unmarshal(data, &spec)
	}
	if err != nil {
		return err
	}
	group := id
	if g := spec.Annotations["group"]; g != "" {
		group = g
	}
	dir := filepath.Join(filepath.Dir(os.Getenv(stateEnv)), "s")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256([]byte(address+ns+group)))[:16])
	// Real shims have the moment between bind and listen in which another start takes the socket for a dead one's.
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		if c, derr := net.Dial("unix", path); derr == nil {
			c.Close()
			return fakeAnswer(form, path)
		}
		os.Remove(path)
		if l, err = net.Listen("unix", path); err != nil {
			return err
		}
	}
	if spec.Annotations["fail"] != "" {
		return errors.New("told to fail")
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "-namespace", ns, "-id", id)
	cmd.Args[0] = fakeDelegate
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return fakeAnswer(form, path)
}

func fakeAnswer(form, path string) error {
	switch form {
	case "plain":
		if err := os.WriteFile("address", []byte("unix://"+path), 0o644); err != nil {
			return err
		}
		fmt.Printf("unix://%s", path)
	case "json":
		fmt.Printf(`{"version":3,"address":"unix://%s","protocol":"ttrpc"}`, path)
	case "grpc":
		fmt.Printf(`{"version":3,"address":"unix://%s","protocol":"grpc"}`, path)
	default:
		out, _ := proto.Marshal(&bootapi.BootstrapResult{
			Version: 3, Address: "unix://" + path, Protocol: "ttrpc", Metadata: map[string]string{"k": "v"},
		})
		os.Stdout.Write(out)
	}
	return nil
}

// fakeServe is the delegate's daemon: it knows containers by id and exits on Shutdown when there are none.
func fakeServe() error {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	s, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	containers := map[string]bool{}
	var seq int
	publish := func(topic string) error {
		conn, err := net.Dial("unix", os.Getenv("TTRPC_ADDRESS"))
		if err != nil {
			return err
		}
		defer conn.Close()
		c := ttrpc.NewClient(conn)
		seq++
		_, err = eventsapi.NewTTRPCEventsClient(c).Forward(context.Background(), &eventsapi.ForwardRequest{
			Envelope: &types.Envelope{Topic: topic, Namespace: "test", Event: &anypb.Any{TypeUrl: "n", Value: fmt.Append(nil, seq)}},
		})
		return err
	}
	methods := map[string]ttrpc.Method{
		"Create": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var r taskapi.CreateTaskRequest
			if err := unmarshal(&r); err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			containers[r.ID] = true
			if err := errors.Join(publish("/hidden"), publish("/tasks/create")); err != nil {
				return nil, err
			}
			return &taskapi.CreateTaskResponse{Pid: 7}, nil
		},
		"Delete": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var r taskapi.DeleteRequest
			if err := unmarshal(&r); err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			delete(containers, r.ID)
			if err := publish("/tasks/delete"); err != nil {
				return nil, err
			}
			return &taskapi.DeleteResponse{Pid: 7}, nil
		},
		"Connect": func(context.Context, func(any) error) (any, error) {
			return &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}, nil
		},
		"Wait": func(ctx context.Context, _ func(any) error) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"Shutdown": func(context.Context, func(any) error) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(containers) == 0 {
				go func() {
					_ = s.Shutdown(context.Background()) // when this call too is answered
					os.Exit(0)
				}()
			}
			return &emptypb.Empty{}, nil
		},
	}
	name := "containerd.task.v3.Task"
	if os.Getenv(fakeForm) == "plain" {
		name = "containerd.task.v2.Task"
	}
	s.RegisterService(name, &ttrpc.ServiceDesc{Methods: methods})
	_ = s.Serve(context.Background(), l)
	select {}
}
