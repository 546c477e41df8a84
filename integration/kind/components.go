// SPDX-License-Identifier: Apache-2.0

package kind

import (
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

const pathInImages = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// components are the programs that run in the cluster's own pods, by the last part of their images' names, with the tool set that
// has them.
var components = map[string]string{
	"kube-apiserver": "kubernetes", "kube-controller-manager": "kubernetes", "kube-scheduler": "kubernetes", "kube-proxy": "kubernetes",
	"etcd": "etcd", "coredns": "coredns", "pause": "pause",
}

// writeComponents writes the images of the cluster's own pods into one Docker archive, under the names that kubeadm asks for.
func writeComponents(dir, archive string) error {
	version, err := versionOf("kubernetes")
	if err != nil {
		return err
	}
	kubeadm, err := stand.Tool("kubernetes", "kubeadm")
	if err != nil {
		return err
	}
	list, err := exec.Command(kubeadm, "config", "images", "list", "--kubernetes-version", version).Output()
	if err != nil {
		return fmt.Errorf("kubeadm config images list: %w", err)
	}
	references, err := referencesOf(string(list))
	if err != nil {
		return err
	}
	for _, set := range []string{"etcd", "coredns"} {
		built, err := versionOf(set)
		if err != nil {
			return err
		}
		if err := sameVersion(references[set], built); err != nil {
			return fmt.Errorf("integration/tools/%s: %w", set, err)
		}
	}
	images := map[name.Tag]v1.Image{}
	for component, reference := range references {
		tag, err := name.NewTag(reference)
		if err != nil {
			return err
		}
		if images[tag], err = componentImage(dir, component); err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
	}
	return tarball.MultiWriteToFile(archive, images)
}

// componentImage is an image with a component's program, and what that needs.
func componentImage(dir, component string) (v1.Image, error) {
	source, err := stand.Tool(components[component], component)
	if err != nil {
		return nil, err
	}
	inside := "/usr/local/bin/" + component
	layer := filepath.Join(dir, component+".tar")
	if err := writeLayer(layer, []file{program(inside, source)}); err != nil {
		return nil, err
	}
	layers := []string{layer}
	if component == "kube-proxy" {
		iptables, err := stand.Tool("nodebase", "iptables.tar")
		if err != nil {
			return nil, err
		}
		layers = append(layers, iptables)
	}
	return imageOf(v1.Config{Env: []string{pathInImages}, Entrypoint: []string{inside}}, layers...)
}

// referencesOf maps components to the references in the list that kubeadm prints, one a line. For the sandbox kind's configuration
// of containerd has the last word.
func referencesOf(list string) (map[string]string, error) {
	references := map[string]string{}
	for _, reference := range strings.Fields(list) {
		component, _, _ := strings.Cut(path.Base(reference), ":")
		if _, ok := components[component]; !ok {
			return nil, fmt.Errorf("kubeadm wants %s, which nothing here is built for", reference)
		}
		references[component] = reference
	}
	references["pause"] = pauseImage
	for component := range components {
		if references[component] == "" {
			return nil, fmt.Errorf("kubeadm does not want %s", component)
		}
	}
	return references, nil
}

// sameVersion checks a module's version against an image's tag, which may lack the "v" and have a suffix: v3.6.5 is 3.6.5-0.
func sameVersion(reference, module string) error {
	_, tag, _ := strings.Cut(path.Base(reference), ":")
	tag, _, _ = strings.Cut(strings.TrimPrefix(tag, "v"), "-")
	if "v"+tag != module {
		return fmt.Errorf("go.mod pins %s, and kubeadm wants %s", module, reference)
	}
	return nil
}

// versionOf is the version of the module that a tool set was built from.
func versionOf(set string) (string, error) {
	file, err := stand.Tool(set, "version")
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(file)
	return strings.TrimSpace(string(content)), err
}
