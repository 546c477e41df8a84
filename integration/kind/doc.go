// SPDX-License-Identifier: Apache-2.0

// Package kind runs Kubernetes clusters of kind's (https://kind.sigs.k8s.io) on a Docker of its own, in the stand's namespaces.
//
// Docker's bridges, its rules of iptables, its mounts and processes, and those of all nodes, end with the namespaces, however the
// program ends; [Enter] puts back what namespaces do not hold. What stays is Docker's data root in the cache, with the node image:
// the stock kindest/node where a registry can be reached, otherwise one that is made here (see image.go) from Go modules and
// Debian's packages.
//
// A program calls [Enter], then [StartDocker], then [Docker.Create]. One program at a time runs; a second one waits.
package kind
