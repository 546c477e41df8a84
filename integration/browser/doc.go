// SPDX-License-Identifier: Apache-2.0

// Package browser has only tests. They open pages of metsuke audit report in Chromium, headless and without a network, and look at what
// it makes of them. It is a module of its own, so that the DevTools protocol stays out of Metsuke's.
package browser
