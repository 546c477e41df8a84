// SPDX-License-Identifier: Apache-2.0

// Package rollout measures what a change of a profile costs a large cluster: real agents of simulated nodes, each with a connection and a
// watch of its own, the real controller, and a real API server on a real etcd. It is a module of its own, because the stands of
// the integration module have no use for Kubernetes' client.
//
// What is simplified: nodes have no kubelet and no containerd, so an agent's doctor is an answer made up here; all agents share
// one process and one machine with the control plane; their profile directories are on a tmpfs, where there is one. The API server sees
// the same requests, from the same credentials (a token bound to the node), through the same roles and admission policies.
package rollout
