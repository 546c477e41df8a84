// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The stock image is that of our architecture, downloaded once, and found under its tag.
func TestFetch(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}},
	})
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/kindest/node:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	archive, reference := filepath.Join(t.TempDir(), "node.tar"), tag.String()+"@"+digest.String()
	if err := fetch(reference, archive); err != nil {
		t.Fatal(err)
	}
	got, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if is, err := got.ConfigName(); err != nil || is != want {
		t.Errorf("the image is %s, %v; want %s", is, err, want)
	}

	server.Close() // once it is there, no registry is asked
	if err := fetch(reference, archive); err != nil {
		t.Error(err)
	}
	missing := archive + ".missing"
	if err := fetch(reference, missing); err == nil {
		t.Error("an image is there without a registry")
	}
	if left, _ := filepath.Glob(missing + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What is asked for has a tag, by which Docker knows it, and a digest, so that it cannot change.
func TestStockImage(t *testing.T) {
	if _, err := name.NewDigest(stockImage); err != nil || tagOf(stockImage) == stockImage || !strings.Contains(tagOf(stockImage), ":v") {
		t.Errorf("%s: %v", stockImage, err)
	}
}
