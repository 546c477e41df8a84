// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"metsuke.dev/metsuke/integration/stand"
)

// repository is the node image's name; its tag says what it was made of.
const repository = "metsuke.test/kind-node"

// pauseImage is the sandbox image in kind's containerd configuration (images/base/files/etc/containerd/config.toml).
const pauseImage = "registry.k8s.io/pause:3.10"

// nodeSets are the tool sets that the node image is made of.
var nodeSets = []string{"nodebase", "pause", "containerd2", "runcstatic", "critools", "cni", "kubernetes", "etcd", "coredns"}

//go:embed node
var nodeFiles embed.FS

// loadImage sees to it that Docker has the image for nodes: the stock one, or one made here.
func (d *Docker) loadImage(ctx context.Context) error {
	if archive := os.Getenv(stockVariable); archive != "" {
		d.image, d.stock = tagOf(stockImage), true
		return d.load(ctx, d.image, func(string) (string, error) { return archive, nil })
	}
	key, err := nodeKey()
	if err != nil {
		return err
	}
	d.image = repository + ":" + key
	return d.load(ctx, d.image, func(dir string) (string, error) {
		archive := filepath.Join(dir, "node.tar")
		return archive, writeNodeImage(dir, archive, d.image)
	})
}

// load loads an archive into Docker unless the image is there already, and removes the images that other runs used.
func (d *Docker) load(ctx context.Context, image string, archive func(dir string) (string, error)) error {
	if _, err := d.docker(ctx, nil, "image", "inspect", image); err == nil {
		return nil
	}
	dir := filepath.Join(cacheDir(), "image") // a run that was killed may have left it
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if _, err := d.docker(ctx, nil, "image", "prune", "--all", "--force"); err != nil {
		return err
	}
	file, err := archive(dir)
	if err != nil {
		return fmt.Errorf("make the node image: %w", err)
	}
	_, err = d.docker(ctx, nil, "load", "--quiet", "--input", file)
	return err
}

// nodeKey names what a node image is made of: the tool sets, whose directories are named by what they were made of, and our files.
func nodeKey() (string, error) {
	sum := sha256.New()
	for _, set := range nodeSets {
		dir, err := stand.ToolSet(set)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, filepath.Base(dir))
	}
	for _, f := range ourFiles {
		content, err := nodeFiles.ReadFile(f.source)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", f.name, len(content), content)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// ourFiles are those of the node image that are embedded here; the rest is kind's own, Debian's, or built.
var ourFiles = []file{
	{name: "/kind/bin/load-images", mode: 0o755, source: "node/load-images"},
	{name: "/kind/manifests/default-cni.yaml", mode: 0o644, source: "node/default-cni.yaml"},
	{name: "/kind/manifests/default-storage.yaml", mode: 0o644, source: "node/default-storage.yaml"},
	{name: podNetwork, mode: 0o644, source: "node/podnet.template"},
	{name: "/etc/systemd/system/containerd.service.d/20-images.conf", mode: 0o644, source: "node/containerd.service.conf"},
	{name: "/etc/systemd/system/kubelet.service.d/20-images.conf", mode: 0o644, source: "node/kubelet.service.conf"},
}

// podNetwork is the template of the CNI configuration that containerd writes once the kubelet has its pods' addresses.
const podNetwork = "/etc/cni/podnet.template"

// writeNodeImage writes the node image as a Docker archive; dir is for what lies in between.
func writeNodeImage(dir, archive, reference string) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	images := filepath.Join(dir, "images.tar")
	if err := writeComponents(dir, images); err != nil {
		return err
	}
	files, err := filesOfNode()
	if err != nil {
		return err
	}
	layer := filepath.Join(dir, "layer.tar")
	if err := writeLayer(layer, append(files, file{name: "/kind/images.tar", mode: 0o644, source: images})); err != nil {
		return err
	}
	base, err := stand.Tool("nodebase", "base.tar")
	if err != nil {
		return err
	}
	// As kind's images/base/Dockerfile has it.
	image, err := imageOf(v1.Config{
		Env:        []string{"container=docker", pathInImages},
		StopSignal: "SIGRTMIN+3",
		Entrypoint: []string{"/usr/local/bin/entrypoint", "/sbin/init"},
	}, base, layer)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(archive, tag, image)
}

// filesOfNode are the files that are laid over the base system.
func filesOfNode() ([]file, error) {
	var files []file
	for dir, programs := range map[string]string{
		"/usr/local/bin/":  "containerd2/containerd containerd2/ctr containerd2/containerd-shim-runc-v2 critools/crictl",
		"/usr/local/sbin/": "runcstatic/runc",
		"/usr/bin/":        "kubernetes/kubelet kubernetes/kubeadm kubernetes/kubectl",
		"/opt/cni/bin/":    "cni/bridge cni/loopback cni/host-local cni/portmap",
	} {
		for _, name := range strings.Fields(programs) {
			source, err := stand.Tool(path.Dir(name), path.Base(name))
			if err != nil {
				return nil, err
			}
			files = append(files, program(dir+path.Base(name), source))
		}
	}
	for _, f := range ourFiles {
		content, err := nodeFiles.ReadFile(f.source)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: f.name, mode: f.mode, content: content})
	}
	version, err := stand.Tool("kubernetes", "version")
	if err != nil {
		return nil, err
	}
	ctr, err := stand.Tool("containerd2", "ctr")
	if err != nil {
		return nil, err
	}
	spec, err := exec.Command(ctr, "oci", "spec").Output()
	if err != nil {
		return nil, fmt.Errorf("ctr oci spec: %w", err)
	}
	if spec, err = baseSpec(spec); err != nil {
		return nil, err
	}
	return append(files,
		file{name: "/kind/version", mode: 0o644, source: version},
		file{name: "/etc/containerd/cri-base.json", mode: 0o644, content: spec},
	), nil
}

// baseSpec edits the specification that containerd starts from, as kind's images/base/Dockerfile does with jq.
func baseSpec(spec []byte) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(spec, &fields); err != nil {
		return nil, err
	}
	process, ok := fields["process"].(map[string]any)
	if !ok {
		return nil, errors.New("ctr oci spec has no process")
	}
	delete(process, "rlimits")
	fields["hooks"] = map[string]any{"createContainer": []any{map[string]string{"path": "/kind/bin/mount-product-files.sh"}}}
	return json.Marshal(fields)
}
