// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Images of the stand. Registry names are what tests pull; the stand's own registry answers to every name.
const (
	ImagePause    = "registry.k8s.io/pause:3.10.1"                   // the sandbox
	ImageBusybox  = "registry.k8s.io/e2e-test-images/busybox:1.29-2" // Debian's busybox and the workload
	ImageScratch  = "stand.test/scratch:1"                           // /bin/workload alone: no shell, no libc
	ImageWorkload = "stand.test/workload:1"                          // busybox with the workload as entry point
	imagesCritest = "registry.k8s.io/e2e-test-images/"               // prefix of what critest pulls, and
	imagesStaging = "gcr.io/k8s-staging-cri-tools/"                  // likewise
	passwd        = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\ndefault-user:x:1000:1000::/:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n"
	group         = "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\nwww-data:x:33:\n"
	pathInImages  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	nonewprivs    = "/usr/bin/nonewprivs"
	nginxInImages = "/usr/sbin/nginx"
)

// An Image is what an image is made of: its files, in one layer, and how it runs.
type Image struct {
	Files      *Files
	Entrypoint []string
	Command    []string
	User       string
	Env        []string
	Labels     map[string]string
}

// Build assembles the image. Its layer is not compressed: the registry is in this process.
func (i Image) Build() (v1.Image, error) {
	content, err := i.Files.tar()
	if err != nil {
		return nil, err
	}
	return i.over(static.NewLayer(content, types.OCIUncompressedLayer))
}

func (i Image) over(layer v1.Layer) (v1.Image, error) {
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err := mutate.AppendLayers(image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: i.Entrypoint, Cmd: i.Command, User: i.User, Env: i.Env, Labels: i.Labels}
	if !slices.ContainsFunc(i.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		config.Config.Env = append([]string{pathInImages}, i.Env...)
	}
	return mutate.ConfigFile(image, config)
}

// Files is the content of a layer, made entry by entry. The first error sticks, and Build returns it.
type Files struct {
	buffer bytes.Buffer
	writer *tar.Writer
	seen   map[string]bool
	err    error
}

// NewFiles is a layer with the directories that every image has.
func NewFiles() *Files {
	f := &Files{seen: map[string]bool{}}
	f.writer = tar.NewWriter(&f.buffer)
	for _, dir := range []string{"/bin", "/etc", "/root", "/usr", "/var/run", "/var/www"} {
		f.Dir(dir, 0o755)
	}
	f.Dir("/tmp", 0o1777)
	return f
}

// Dir adds a directory and its parents.
func (f *Files) Dir(name string, mode int64) *Files {
	if name == "/" || f.seen[name] {
		return f
	}
	f.Dir(path.Dir(name), 0o755)
	return f.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

// File adds a file with the content given.
func (f *Files) File(name string, mode int64, content []byte) *Files {
	f.Dir(path.Dir(name), 0o755)
	return f.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

// Link adds a hard link to a file that was added before. Hard links, not symbolic ones: masking one leaves the others.
func (f *Files) Link(name, target string) *Files {
	f.Dir(path.Dir(name), 0o755)
	return f.add(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: strings.TrimPrefix(target, "/"), Mode: 0o755}, nil)
}

// Symlink adds a symbolic link.
func (f *Files) Symlink(name, target string) *Files {
	f.Dir(path.Dir(name), 0o755)
	return f.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// Host copies a file of the host to the same or another name.
func (f *Files) Host(name, source string) *Files {
	info, err := os.Stat(source)
	if err != nil {
		return f.fail(err)
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return f.fail(err)
	}
	return f.File(name, int64(info.Mode().Perm()), content)
}

// HostTree copies a directory of the host, except what skip says; symbolic links stay links.
func (f *Files) HostTree(dir string, skip func(name string) bool) *Files {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f.fail(err)
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if skip(name) {
			continue
		}
		switch {
		case entry.IsDir():
			f.HostTree(name, skip)
		case entry.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return f.fail(err)
			}
			f.Symlink(name, target)
		case entry.Type().IsRegular():
			f.Host(name, name)
		}
	}
	return f
}

// HostProgram copies a program that a Debian package of the host has, to /usr/bin, and the shared libraries that it
// needs. PATH is not asked: on a developer's machine it finds wrappers of another Python first.
func (f *Files) HostProgram(name string) *Files {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		if source := path.Join(dir, name); isFile(source) {
			return f.Host("/usr/bin/"+name, source).HostLibraries(source)
		}
	}
	return f.fail(fmt.Errorf("the host has no program %s", name))
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// HostLibraries copies the shared libraries that ldd(1) lists for a file of the host.
func (f *Files) HostLibraries(file string) *Files {
	out, err := exec.Command("ldd", file).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") || strings.Contains(string(out), "statically linked") {
			return f
		}
		return f.fail(fmt.Errorf("ldd %s: %w: %s", file, err, out))
	}
	for line := range strings.Lines(string(out)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") && !f.seen[field] {
				f.Host(field, field)
			}
		}
	}
	return f
}

func (f *Files) add(header *tar.Header, content []byte) *Files {
	name := path.Clean(header.Name)
	if f.err != nil || f.seen[name] {
		return f
	}
	f.seen[name] = true
	header.Name = strings.TrimPrefix(header.Name, "/")
	if err := f.writer.WriteHeader(header); err != nil {
		return f.fail(fmt.Errorf("%s: %w", name, err))
	}
	if _, err := f.writer.Write(content); err != nil {
		return f.fail(fmt.Errorf("%s: %w", name, err))
	}
	return f
}

func (f *Files) fail(err error) *Files {
	if f.err == nil {
		f.err = fmt.Errorf("make an image: %w", err)
	}
	return f
}

func (f *Files) tar() ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	if err := f.writer.Close(); err != nil {
		return nil, err
	}
	return f.buffer.Bytes(), nil
}

// Busybox adds Debian's busybox with a link for each applet, users, and the workload with its other names.
func (f *Files) Busybox() *Files {
	source, err := Tool("busybox", "busybox")
	if err != nil {
		return f.fail(err)
	}
	f.Host("/bin/busybox", source).HostLibraries(source)
	applets, err := exec.Command(source, "--list").Output()
	if err != nil {
		return f.fail(fmt.Errorf("busybox --list: %w", err))
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			f.Link("/bin/"+applet, "/bin/busybox")
		}
	}
	f.Host("/bin/workload", Workload())
	for _, name := range []string{"/bin/ipcs", "/bin/pgrep", nginxInImages} {
		f.Link(name, "/bin/workload")
	}
	// A second copy, because a link would make the workload itself set-user-ID.
	content, err := os.ReadFile(Workload())
	if err != nil {
		return f.fail(err)
	}
	f.File(nonewprivs, 0o4755, content)
	f.File("/etc/passwd", 0o644, []byte(passwd))
	f.File("/etc/group", 0o644, []byte(group))
	return f
}

// standardImages are what critest and the end-to-end tests pull, by reference.
func standardImages() (map[string]v1.Image, error) {
	content, err := NewFiles().Busybox().tar()
	if err != nil {
		return nil, err
	}
	busybox := static.NewLayer(content, types.OCIUncompressedLayer)
	content, err = NewFiles().Host("/bin/workload", Workload()).tar()
	if err != nil {
		return nil, err
	}
	scratch := static.NewLayer(content, types.OCIUncompressedLayer)

	images := map[string]v1.Image{}
	add := func(layer v1.Layer, reference string, image Image) {
		if err != nil {
			return
		}
		images[reference], err = image.over(layer)
	}
	add(scratch, ImagePause, Image{Entrypoint: []string{"/bin/workload", "pause"}})
	add(scratch, ImageScratch, Image{Entrypoint: []string{"/bin/workload"}})
	add(busybox, ImageWorkload, Image{Entrypoint: []string{"/bin/workload"}})
	shell := Image{Command: []string{"sh"}}
	add(busybox, ImageBusybox, shell)
	add(busybox, imagesCritest+"nginx:1.14-2", Image{Entrypoint: []string{nginxInImages, "80"}})
	add(busybox, imagesCritest+"httpd:2.4.39-4", Image{Entrypoint: []string{nginxInImages, "80"}})
	add(busybox, imagesStaging+"hostnet-nginx-"+runtime.GOARCH, Image{Entrypoint: []string{nginxInImages, "12003"}})
	add(busybox, imagesCritest+"nonewprivs:1.3", Image{Entrypoint: []string{nonewprivs}})
	for name, user := range map[string]string{
		"test-image-user-uid": "1002", "test-image-user-username": "www-data", "test-image-user-uid-group": "1003:1000",
		"test-image-user-username-group": "www-data:100", "test-image-predefined-group": "1000",
	} {
		add(busybox, imagesStaging+name, Image{Command: []string{"sh"}, User: user})
	}
	// Images that tests tell apart by their IDs, so each gets a label.
	for name, label := range map[string]string{
		"test-image-latest": "latest", "test-image-tag:test": "tag", "test-image-tag:all": "all", "test-image-digest": "digest",
		"test-image-1": "1", "test-image-2": "2", "test-image-3": "3",
		"test-image-tags:1": "tags", "test-image-tags:2": "tags", "test-image-tags:3": "tags",
	} {
		add(busybox, imagesStaging+name, Image{Command: []string{"sh"}, Labels: map[string]string{"test": label}})
	}
	return images, err
}
