// SPDX-License-Identifier: Apache-2.0

// Command demo runs a misbehaving agent as a pod under a real containerd, through CRI and Metsuke, and shows what it was
// denied, where it met its limits, and its timeline. It fails if anything of that is missing.
//
// On Kata it shows too that the agent ran on a kernel of its own, and that the host did not see what it did: strace watches the
// process of its virtual machine meanwhile.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

const (
	handler   = "metsuke"
	namespace = "agents"
	container = "agent"
	image     = "stand.test/agent:1"
	// A demo that hangs says so.
	deadline = 10 * time.Minute
)

// agent is the script that the pod runs.
//
//go:embed agent.py
var agent []byte

// profiles are what the platform team would have written.
//
//go:embed profiles.yaml
var profiles string

func main() {
	setup := stand.SetupFlags()
	keep := flag.Bool("keep", false, "leave the stand up, for crictl, until interrupted")
	out := flag.String("out", "", "`directory` to copy the audit stream to (default: none)")
	flag.Parse()
	sets := setup.Tools()
	if *keep {
		sets = append(sets, "critools")
	}
	stand.Enter(sets...)
	if err := demo(setup, *keep, *out); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func headline(format string, args ...any) {
	fmt.Printf("\n\033[1m== "+format+"\033[0m\n", args...)
}

func demo(setup *stand.Setup, keep bool, out string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()

	headline("containerd %s with %s, in namespaces of its own", setup.Version, setup.Delegate.About())
	if err := stand.StartServices(); err != nil {
		return err
	}
	s, err := stand.Start(ctx, stand.Options{
		Version:  setup.Version,
		Delegate: setup.Delegate,
		Handlers: []stand.Handler{{
			Name: handler, Profiles: map[string]string{"agents.yaml": profiles}, Placement: setup.Placement, DefaultPlace: true,
		}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.AddImage(image, agentImage()); err != nil {
		return err
	}

	headline("the profile, bound to namespace %q", namespace)
	fmt.Print(profiles)

	headline("the agent, and what it says")
	pod, err := s.RunPod(ctx, stand.PodConfig{Handler: handler, Name: "coder", Namespace: namespace})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.LogTail(20))
	}
	var sensor *stand.Sensor
	if setup.Delegate == stand.Kata {
		if sensor, err = watchMachine(pod); err != nil {
			return err
		}
		defer sensor.Close()
	}
	main, err := runAgent(ctx, pod)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.LogTail(20))
	}
	if err := follow(ctx, main); err != nil {
		return err
	}
	status, err := main.Wait(ctx)
	if err != nil {
		return err
	}
	events, err := streamOf(pod)
	if err != nil {
		return err
	}
	fmt.Printf("(exit status %d; its supervisor ran on the side of the %s)\n", status.GetExitCode(), events[0].Fields["placement"])
	if sensor != nil {
		headline("the host, meanwhile")
		if err := showBlind(events, sensor); err != nil {
			return err
		}
	}
	headline("denied")
	printDenials(events)
	headline("limits: metsuke audit tail --kind start,limit,oom")
	if err := timeline(ctx, s, "--kind", "start,limit,oom"); err != nil {
		return err
	}
	headline("timeline: metsuke audit tail -n all")
	if err := timeline(ctx, s); err != nil {
		return err
	}

	headline("the stream")
	dirs, err := pod.StreamDirs(handler)
	if err != nil {
		return err
	}
	if err := showPlace(ctx, s, dirs[container], len(events), out); err != nil {
		return err
	}
	if err := check(events, status); err != nil {
		return err
	}
	if keep {
		return waitKept(interrupted, s)
	}
	return nil
}

// runAgent runs the agent. It asks for more memory than its profile lets it have.
func runAgent(ctx context.Context, pod *stand.Pod) (*stand.Container, error) {
	return pod.Run(ctx, stand.ContainerConfig{
		Name: container, Image: image,
		Limits: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 2 << 30},
	})
}

// agentImage is a small Debian: the host's own programs with their libraries, Python, and the agent.
func agentImage() stand.Image {
	files := stand.NewFiles().Dir("/mnt", 0o755)
	for _, program := range []string{"bash", "cat", "wc", "rm", "ls", "grep", "true", "curl", "strace", "mount", "unshare", "python3"} {
		files.HostProgram(program)
	}
	files.Link("/bin/bash", "/usr/bin/bash")
	files.Host("/usr/bin/workload", stand.Workload())
	files.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/bash\n"))
	files.File("/etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n"))
	// Python's own modules, less what an agent has no use for.
	modules, _ := filepath.Glob("/usr/lib/python3.*")
	for _, dir := range modules {
		files.Dir(dir+"/lib-dynload", 0o755) // Python looks for it to learn where it is installed
		files.HostTree(dir, func(name string) bool {
			switch filepath.Base(name) {
			case "__pycache__", "dist-packages", "test", "idlelib", "lib2to3", "ensurepip", "lib-dynload", "sitecustomize.py":
				return true
			}
			return strings.Contains(name, "/config-")
		})
	}
	files.File("/agent/agent.py", 0o755, agent)
	return stand.Image{
		Files: files, Entrypoint: []string{"python3", "/agent/agent.py"},
		Env: []string{"PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"},
	}
}

// follow prints what the container writes, until it has exited.
func follow(ctx context.Context, c *stand.Container) error {
	printed := 0
	for {
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		text, err := c.Output()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		fmt.Print(text[printed:])
		printed = len(text)
		if status.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent did not end: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// streamOf reads the agent's stream when its last record is there: the shim writes it as it learns of the exit.
func streamOf(pod *stand.Pod) ([]stand.Event, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		events, err := pod.Events(handler, container)
		if err == nil && len(events) > 0 && stand.Last(events).Kind == "exit" {
			return events, nil
		}
		if time.Now().After(end) {
			return events, errors.Join(errors.New("the agent's stream does not end with its exit"), err)
		}
	}
}

func timeline(ctx context.Context, s *stand.Stand, filters ...string) error {
	args := append([]string{"audit", "tail", "-n", "all", "--dir", s.AuditDir(handler)}, filters...)
	cmd := exec.CommandContext(ctx, stand.Metsuke("metsuke"), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// showPlace says where the stream lies, copies all that there is of it to where it outlives the stand, and says what to look at it with.
func showPlace(ctx context.Context, s *stand.Stand, dir string, records int, out string) error {
	fmt.Printf("%d records in %s\n", records, dir)
	if out == "" {
		return nil
	}
	copied, key := filepath.Join(out, "audit"), filepath.Join(out, "node.pem")
	if err := errors.Join(os.RemoveAll(copied), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	if err := os.CopyFS(copied, os.DirFS(s.AuditDir(handler))); err != nil {
		return err
	}
	public, err := exec.CommandContext(ctx, stand.Metsuke("metsuke"), "audit", "key").Output() // of the default place
	if err != nil {
		return fmt.Errorf("metsuke audit key: %w", err)
	}
	if err := os.WriteFile(key, public, 0o644); err != nil {
		return err
	}
	fmt.Printf("which is inside the stand; a copy is in %s. Look at it with:\n", copied)
	audit := stand.Metsuke("metsuke") + " audit "
	for _, command := range []string{
		"report coder --key " + key + " -o " + filepath.Join(out, "coder.html") + " --dir " + copied,
		"verify --key " + key + " " + copied,
		"query --verdict denied -o wide --dir " + copied,
		"stats --dir " + copied,
		"tree --dir " + copied,
	} {
		fmt.Println("  " + audit + command)
	}
	return nil
}

// waitKept says how to reach the stand, and waits.
func waitKept(ctx context.Context, s *stand.Stand) error {
	crictl, err := stand.Tool("critools", "crictl")
	if err != nil {
		return err
	}
	headline("the stand stays up until Ctrl-C; in another shell:")
	enter := stand.EnterCommand()
	fmt.Printf("  %s %s --runtime-endpoint unix://%s pods\n", enter, crictl, s.Endpoint())
	fmt.Printf("  %s %s audit tail -f --dir %s\n", enter, stand.Metsuke("metsuke"), s.AuditDir(handler))
	<-ctx.Done()
	fmt.Println("\nending the stand")
	return nil
}
