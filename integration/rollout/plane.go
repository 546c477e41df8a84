// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// plane is a control plane on the loopback address: etcd, the API server, and Metsuke's controller as Metsuke's manifests install it.
type plane struct {
	Programs
	dir        string
	admin      *rest.Config
	client     *kubernetes.Clientset
	etcdURL    string
	port       int
	etcd       *process
	apiserver  *process
	controller *process
}

// startPlane starts a control plane that keeps its data and its logs in dir.
func startPlane(ctx context.Context, programs Programs, dir string) (p *plane, err error) {
	p = &plane{Programs: programs, dir: dir}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	certificate, key, err := ca.credentials(dir)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	p.etcdURL, p.port = fmt.Sprintf("http://127.0.0.1:%d", ports[0]), ports[2]
	p.admin = &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", p.port),
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.pem, CertData: certificate, KeyData: key},
		QPS:             -1,
	}
	if p.client, err = kubernetes.NewForConfig(p.admin); err != nil {
		return nil, err
	}
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	if p.etcd, err = start(dir, filepath.Join(p.Etcd, "etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "warn",
		"--listen-client-urls", p.etcdURL, "--advertise-client-urls", p.etcdURL, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return nil, err
	}
	if err := p.startAPIServer(ctx); err != nil {
		return nil, err
	}
	if err := p.install(ctx); err != nil {
		return nil, err
	}
	return p, p.startController(ctx)
}

// startAPIServer starts the API server with the defaults of kubeadm, as far as they matter here, and waits until it is ready.
func (p *plane) startAPIServer(ctx context.Context) (err error) {
	file := func(name string) string { return filepath.Join(p.dir, name) }
	p.apiserver, err = start(p.dir, filepath.Join(p.Kubernetes, "kube-apiserver"),
		"--etcd-servers", p.etcdURL, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(p.port), "--endpoint-reconciler-type", "none",
		"--tls-cert-file", file("server.crt"), "--tls-private-key-file", file("server.key"), "--client-ca-file", file("ca.crt"),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", file("tokens.key"),
		"--service-account-signing-key-file", file("tokens.key"), "--authorization-mode", "Node,RBAC", "--service-cluster-ip-range", "10.96.0.0/16")
	if err != nil {
		return err
	}
	return p.until(ctx, "the API server to be ready", func() error {
		return p.client.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(5 * time.Second).Do(ctx).Error()
	})
}

// install applies Metsuke's own manifests. Of its Deployment and DaemonSet nothing comes: nobody runs pods here.
func (p *plane) install(ctx context.Context) error {
	path, err := p.kubeconfig("admin", p.admin)
	if err != nil {
		return err
	}
	// Twice at most: the second finds the definitions served that the first applied.
	return p.until(ctx, "the manifests to be applied", func() error {
		out, err := exec.CommandContext(ctx, filepath.Join(p.Kubernetes, "kubectl"), "--kubeconfig", path, "apply", "--server-side", "-k", p.Deploy).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func (p *plane) startController(ctx context.Context) error {
	token, err := p.token(ctx, "metsuke-controller", nil)
	if err != nil {
		return err
	}
	path, err := p.kubeconfig("controller", p.as(token))
	if err != nil {
		return err
	}
	p.controller, err = start(p.dir, filepath.Join(p.Metsuke, "metsuke"), "controller", "--kubeconfig", path, "--namespace", namespace)
	return err
}

// as is how to reach the API server with a token.
func (p *plane) as(token string) *rest.Config {
	return &rest.Config{Host: p.admin.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: p.admin.CAData}}
}

func (p *plane) kubeconfig(name string, c *rest.Config) (string, error) {
	path := filepath.Join(p.dir, name+".kubeconfig")
	return path, clientcmd.WriteToFile(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: c.Host, CertificateAuthorityData: c.CAData}},
		AuthInfos:      map[string]*api.AuthInfo{name: {ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
}

// until tries something until it goes well. The error is that ctx ended, or that a program did.
func (p *plane) until(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if dead := p.ended(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ended is nil while all programs run that were not stopped.
func (p *plane) ended() error {
	var errs []error
	for _, process := range []*process{p.etcd, p.apiserver, p.controller} {
		if process != nil && !process.stopped {
			errs = append(errs, process.ended())
		}
	}
	return errors.Join(errs...)
}

// stop ends all programs, those first that would complain about the loss of others.
func (p *plane) stop() {
	for _, process := range []*process{p.controller, p.apiserver, p.etcd} {
		if process != nil {
			process.stop()
		}
	}
}

// freePorts are ports of the loopback address that nobody has at the moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // all at the end, or one would be found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// tempDir makes a directory for a run. Files of profile directories go to memory, if there is a file system for that.
func tempDir(memory bool) (string, error) {
	base := ""
	if info, err := os.Stat("/dev/shm"); memory && err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	return os.MkdirTemp(base, "metsuke-rollout-")
}
