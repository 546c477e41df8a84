// SPDX-License-Identifier: Apache-2.0

// Package deploy holds the manifests in deploy against each other, and against what they promise. It has tests only.
package deploy
