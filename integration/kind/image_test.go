// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// entry is what an image has of a file.
type entry struct {
	Mode    int64
	Content string
}

// An image that is written and read again has the files of its layers, the later ones over the earlier, and its configuration.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte("\x7fELF"), 0o700); err != nil {
		t.Fatal(err)
	}
	below, above := filepath.Join(dir, "below.tar"), filepath.Join(dir, "above.tar")
	for path, files := range map[string][]file{
		below: {{name: "/etc/version", mode: 0o644, content: []byte("1")}, {name: "/etc/kept", mode: 0o600, content: []byte("kept")}},
		above: {{name: "/etc/version", mode: 0o644, content: []byte("2")}, program("/usr/bin/program", source)},
	} {
		if err := writeLayer(path, files); err != nil {
			t.Fatal(err)
		}
	}
	config := v1.Config{Env: []string{"container=docker"}, StopSignal: "SIGRTMIN+3", Entrypoint: []string{"/sbin/init"}}
	image, err := imageOf(config, below, above)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("metsuke.test/image:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	if err := tarball.WriteToFile(archive, tag, image); err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	found, err := read.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config, found.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	want := map[string]entry{
		"etc/version": {0o644, "2"}, "etc/kept": {0o600, "kept"}, "usr/bin/program": {0o755, "\x7fELF"},
	}
	if diff := cmp.Diff(want, filesOf(t, read)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func filesOf(t *testing.T, image v1.Image) map[string]entry {
	t.Helper()
	flat := mutate.Extract(image)
	defer func() { _ = flat.Close() }()
	files := map[string]entry{}
	for archive := tar.NewReader(flat); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = entry{header.Mode, string(content)}
	}
}

// Equal files make an equal layer, whenever the files were written.
func TestLayerIsReproducible(t *testing.T) {
	dir := t.TempDir()
	var layers [2][]byte
	for i := range layers {
		source, layer := filepath.Join(dir, "program"), filepath.Join(dir, "layer.tar")
		if err := os.WriteFile(source, []byte("x"), os.FileMode(0o600+i)); err != nil {
			t.Fatal(err)
		}
		if err := writeLayer(layer, []file{program("/bin/program", source)}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(layer)
		if err != nil {
			t.Fatal(err)
		}
		layers[i] = content
		if err := os.Remove(source); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(layers[0], layers[1]) {
		t.Error("two layers of one file differ")
	}
}

func TestBaseSpec(t *testing.T) {
	got, err := baseSpec([]byte(`{"ociVersion": "1.2.0", "process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE"}]}}`))
	want := `{"hooks":{"createContainer":[{"path":"/kind/bin/mount-product-files.sh"}]},"ociVersion":"1.2.0","process":{"cwd":"/"}}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, wrong := range []string{"", "{}", `{"process": 1}`} {
		if _, err := baseSpec([]byte(wrong)); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}

func TestReferencesOf(t *testing.T) {
	list := `registry.k8s.io/kube-apiserver:v1.34.4
registry.k8s.io/kube-controller-manager:v1.34.4
registry.k8s.io/kube-scheduler:v1.34.4
registry.k8s.io/kube-proxy:v1.34.4
registry.k8s.io/coredns/coredns:v1.12.1
registry.k8s.io/pause:3.10.1
`
	const etcd = "registry.k8s.io/etcd:3.6.5-0\n"
	got, err := referencesOf(list + etcd)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(components) || got["coredns"] != "registry.k8s.io/coredns/coredns:v1.12.1" || got["pause"] != pauseImage {
		t.Errorf("references: %v", got)
	}
	for name, wrong := range map[string]string{"one missing": list, "one too many": list + etcd + "registry.k8s.io/more:1\n"} {
		if got, err := referencesOf(wrong); err == nil {
			t.Errorf("%s: accepted: %v", name, got)
		}
	}
}

func TestSameVersion(t *testing.T) {
	for _, test := range []struct {
		reference, module string
		same              bool
	}{
		{"registry.k8s.io/etcd:3.6.5-0", "v3.6.5", true},
		{"registry.k8s.io/coredns/coredns:v1.12.1", "v1.12.1", true},
		{"registry.k8s.io/etcd:3.6.6-0", "v3.6.5", false},
		{"registry.k8s.io/etcd", "v3.6.5", false},
	} {
		if err := sameVersion(test.reference, test.module); (err == nil) != test.same {
			t.Errorf("%s and %s: %v", test.reference, test.module, err)
		}
	}
}
