// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// stockImage is the default image of the kind that integration/tools/kind pins (pkg/apis/config/defaults there).
const stockImage = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"

// stockVariable is the stock image's archive, in the environment of the program inside; empty without one.
const stockVariable = "METSUKE_KIND_STOCK"

// registryPatience is how long the registry may take to say that it has the image.
const registryPatience = 5 * time.Second

// fetchStock downloads kind's own image into the cache, unless it is there, and tells the program inside where it is. It says on
// stderr what nodes will be made of. Docker cannot pull it: there is no way out of the stand's network.
func fetchStock() bool {
	archive := filepath.Join(cacheDir(), "kindest-node-"+stockImage[len(stockImage)-16:]+".tar")
	err := fetch(stockImage, archive)
	if err != nil {
		archive = ""
		fmt.Fprintf(os.Stderr, "kind: nodes are made here, because %s cannot be had: %v\n", tagOf(stockImage), firstLine(err))
	} else {
		fmt.Fprintf(os.Stderr, "kind: nodes are %s\n", tagOf(stockImage))
	}
	return errors.Join(err, os.Setenv(stockVariable, archive)) == nil
}

func fetch(image, archive string) error {
	if _, err := os.Stat(archive); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	digest, err := name.NewDigest(image)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(tagOf(image))
	if err != nil {
		return err
	}
	platform := remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	ctx, cancel := context.WithTimeout(context.Background(), registryPatience)
	defer cancel()
	if _, err := remote.Head(digest, remote.WithContext(ctx)); err != nil {
		return err
	}
	pulled, err := remote.Image(digest, platform)
	if err != nil {
		return err
	}
	beside := archive + ".new"
	if err := tarball.WriteToFile(beside, tag, pulled); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return os.Rename(beside, archive)
}

// tagOf is an image's name without its digest.
func tagOf(image string) string {
	tag, _, _ := strings.Cut(image, "@")
	return tag
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
