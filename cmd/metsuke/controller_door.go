// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"k8s.io/client-go/dynamic"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"metsuke.dev/metsuke/cluster/door"
)

// doorService is the Service by which the API server reaches the door.
const doorService = "metsuke-controller"

func newDoor(config *rest.Config, client dynamic.Interface, namespace string) (*door.Door, error) {
	reviews, err := authorization.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	maps, err := core.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return door.New(door.Config{Host: doorService + "." + namespace + ".svc", Dynamic: client, Reviews: reviews, ConfigMaps: maps}), nil
}

// together runs all until ctx ends or one of them has ended, and returns when all have.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make(chan error, len(all))
	for _, one := range all {
		go func() {
			defer stop()
			errs <- one(ctx)
		}()
	}
	var err error
	for range all {
		err = errors.Join(err, <-errs)
	}
	return err
}
