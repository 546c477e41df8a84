// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log"

	"github.com/containerd/ttrpc"

	"metsuke.dev/metsuke/integration/kata/agent/guest"
	"metsuke.dev/metsuke/integration/kata/agent/rpc"
	"metsuke.dev/metsuke/integration/kata/agent/sandbox"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("agent: ")
	log.Printf("this is Metsuke's stand-in for Kata's agent (%s), not Kata's", rpc.Version)
	err := run()
	log.Printf("the guest ends: %v", err)
	guest.Stop()
}

func run() error {
	if err := guest.Boot(); err != nil {
		return err
	}
	words, err := guest.Option("standin.policy")
	if err != nil {
		return err
	}
	policy, err := rpc.ParsePolicy(words)
	if err != nil {
		return err
	}
	port, err := guest.FindPort("agent.0")
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	pod := sandbox.New(sandbox.Guest())
	go pod.ReapOrphans()
	rpc.Register(server, pod, policy)
	fmt.Println("agent: ready")
	return server.Serve(context.Background(), port)
}
