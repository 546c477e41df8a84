// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A file of an image: of the host, or with the content given. Its directories are made by whoever unpacks it.
type file struct {
	name    string // absolute, in the image
	mode    int64
	source  string // path on the host
	content []byte // if source is empty
}

// program is an executable of the host.
func program(name, source string) file { return file{name: name, mode: 0o755, source: source} }

// writeLayer writes the files into a tar archive, owned by root and without times, so that equal files make an equal archive.
func writeLayer(path string, files []file) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	archive := tar.NewWriter(out)
	for _, f := range files {
		if err := f.write(archive); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (f file) write(archive *tar.Writer) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name[1:], Mode: f.mode, Size: int64(len(f.content))}
	if f.source == "" {
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(f.content)
		return err
	}
	in, err := os.Open(f.source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, in)
	return err
}

// imageOf is an image of layers, which are tar archives on disk that must stay there as long as the image is used.
func imageOf(config v1.Config, layers ...string) (v1.Image, error) {
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Config: config, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, path := range layers {
		// Whoever loads it unpacks it at once, so compressing is time lost.
		layer, err := tarball.LayerFromFile(path, tarball.WithCompressionLevel(gzip.NoCompression))
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	return image, nil
}
