// SPDX-License-Identifier: Apache-2.0

// Package crd has only tests. They run the CustomResourceDefinitions and admission policies that Metsuke ships in the API server's
// own code, and compare what it says with what a node says: of documents package profile, of pods profile.Set.Select. They hold the
// examples in deploy against the same code, and against the definitions of others' kinds. It is a module of its own, so that the API
// server's code stays out of Metsuke's.
package crd
