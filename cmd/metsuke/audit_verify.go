// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/audit/verify"
)

func newAuditVerifyCommand() *cobra.Command {
	var node bool
	var keyFiles []string
	cmd := &cobra.Command{
		Use:   "verify [POD | DIR]...",
		Short: "Prove that nothing of a stream is missing, changed, reordered or cut off",
		Long: `Check each record of streams against its chain, the chain against what is signed of it, and the streams that there are against
the node's ledger; say exactly where something is wrong.

POD is the name of a pod, or NAMESPACE/POD. DIR, which has a slash in it, is a stream's directory, a pod's, or one that holds all streams of a
node; it may be a copy. --node means all streams of this node.

It exits with 0 if all is proven, with 1 if a fault was found, with 2 if it was called wrongly, and with 3 if there is no fault but
something cannot be judged: there is no key, or a stream was never signed.`,
		Example: `  metsuke audit verify --node
  metsuke audit verify team-a/coder
  metsuke audit verify --key node-1.pem ./evidence/audit -o json`,
	}
	cmd.Flags().BoolVar(&node, "node", false, "verify all streams of the node, and its ledger")
	addKeyFlag(cmd, &keyFiles)
	output := addOutputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if node == (len(args) > 0) {
			return cmd.FlagErrorFunc()(cmd, errors.New("name pods or directories, or give --node"))
		}
		keys, err := verifyKeys(cmd, keyFiles)
		if err != nil {
			return err
		}
		v := &verification{cmd: cmd, keys: keys, json: output.Value == "json"}
		if node {
			err = v.streams("", func(stream.Stream) bool { return true })
		}
		for _, arg := range args {
			if err = errors.Join(err, v.argument(arg)); err != nil {
				break
			}
		}
		if err != nil {
			return err
		}
		return v.result()
	}
	return cmd
}

// addKeyFlag adds --key, and --config, which names the node's own.
func addKeyFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVar(files, "key", nil, "file with public keys to verify with (repeatable; default: the node's own)")
	_ = cmd.MarkFlagFilename("key", "pem")
	addConfigFlag(cmd, "configuration file that names the node's key")
}

// verifyKeys reads the keys that are given, or the node's own. There may be none: then chains can be checked, and nothing proven.
func verifyKeys(cmd *cobra.Command, files []string) (keys signature.Ring, err error) {
	own := len(files) == 0
	if own {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return nil, err
		}
		files = []string{cfg.Audit.Key}
	}
	for _, file := range files {
		ring, err := signature.LoadRing(file)
		if own && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			fmt.Fprintf(cmd.ErrOrStderr(), "metsuke: %v; give public keys with --key\n", err)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, ring...)
	}
	return keys, nil
}

// verification is one run of the command.
type verification struct {
	cmd    *cobra.Command
	keys   signature.Ring
	json   bool
	count  map[verify.Severity]int
	looked int
}

// argument verifies a pod or a directory.
func (v *verification) argument(arg string) error {
	info, err := os.Stat(arg)
	if !strings.Contains(arg, "/") || err != nil || !info.IsDir() {
		if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
			return fmt.Errorf("%s: no such directory", arg)
		}
		namespace, pod, found := strings.Cut(arg, "/")
		if !found {
			namespace, pod = "", arg
		}
		before := v.looked
		err := v.streams("", func(s stream.Stream) bool { return s.Names(namespace, pod, "") })
		if err == nil && v.looked == before {
			err = fmt.Errorf("pod %s has no stream here; metsuke audit ls lists them", arg)
		}
		return err
	}
	switch {
	case isStream(arg):
		return v.dir(arg)
	case isPod(arg):
		entries, err := os.ReadDir(arg)
		for _, e := range entries {
			if e.IsDir() && err == nil {
				err = v.dir(filepath.Join(arg, e.Name()))
			}
		}
		return err
	}
	return v.streams(arg, func(stream.Stream) bool { return true })
}

// isStream tells whether a directory holds a stream, or what is left of one.
func isStream(dir string) bool {
	segments, err := stream.Segments(dir)
	if err == nil && len(segments) > 0 {
		return true
	}
	_, err = os.Lstat(filepath.Join(dir, manifest.Name))
	return err == nil
}

// isPod tells whether a directory holds the streams of one pod.
func isPod(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, ledger.Name)); err == nil {
		return false
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && isStream(filepath.Join(dir, e.Name())) {
			return true
		}
	}
	return false
}

func (v *verification) dir(dir string) error {
	s, err := verify.Dir(dir, v.keys)
	if err != nil {
		return err
	}
	return v.print(s)
}

// streams verifies the streams below a root that match, and its ledger.
func (v *verification) streams(root string, match func(stream.Stream) bool) (err error) {
	if root == "" {
		if root, err = auditDir(v.cmd); err != nil {
			return err
		}
	}
	l, err := verify.Node(root, v.keys, match, v.print)
	if err != nil {
		return err
	}
	if l.Path == "" && len(l.Findings) == 0 {
		return nil
	}
	v.note(l.Verdict())
	if v.json {
		return v.encode(struct {
			Ledger  *verify.Ledger  `json:"ledger"`
			Verdict verify.Severity `json:"verdict"`
		}{l, l.Verdict()})
	}
	fmt.Fprintf(v.cmd.OutOrStdout(), "%-8s the node's ledger: %d lines, %d streams\n", verdictWord(l.Verdict()), l.Lines, l.Streams)
	printFindings(v.cmd.OutOrStdout(), l.Findings)
	return nil
}

func (v *verification) note(s verify.Severity) {
	if v.count == nil {
		v.count = map[verify.Severity]int{}
	}
	v.count[s]++
}

func (v *verification) print(s *verify.Stream) error {
	v.looked++
	v.note(s.Verdict())
	if v.json {
		return v.encode(struct {
			*verify.Stream
			Verdict verify.Severity `json:"verdict"`
		}{s, s.Verdict()})
	}
	w := v.cmd.OutOrStdout()
	name := s.Stream
	if name == "" {
		name = s.Path
	}
	fmt.Fprintf(w, "%-8s %s: %s, %d records", verdictWord(s.Verdict()), timeline.Escape(name), s.State, s.Records)
	switch {
	case s.Signed > 0 && s.SignedAt != nil:
		fmt.Fprintf(w, ", signed up to %d at %s UTC", s.Signed, s.SignedAt.UTC().Format(time.DateTime))
	case s.Signed > 0:
		fmt.Fprintf(w, ", signed up to %d", s.Signed)
	}
	fmt.Fprintln(w)
	printFindings(w, s.Findings)
	if s.LeftOut > 0 {
		fmt.Fprintf(w, "  and %d findings more\n", s.LeftOut)
	}
	return nil
}

func verdictWord(s verify.Severity) string {
	switch s {
	case verify.Fault:
		return "FAULT"
	case verify.Unjudged:
		return "unknown"
	}
	return "proven"
}

func printFindings(w io.Writer, list []verify.Finding) {
	for _, x := range list {
		fmt.Fprintf(w, "  %s %s: %s", x.Severity, x.Code, timeline.Escape(x.File))
		if x.Line > 0 {
			fmt.Fprintf(w, ", line %d", x.Line)
		}
		if x.Offset > 0 {
			fmt.Fprintf(w, ", offset %d", x.Offset)
		}
		if x.Seq > 0 {
			fmt.Fprintf(w, ", record %d", x.Seq)
		}
		fmt.Fprintf(w, ": %s\n", timeline.Escape(x.Message))
	}
}

func (v *verification) encode(x any) error {
	enc := json.NewEncoder(v.cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	return enc.Encode(x)
}

// result is the error that makes the exit code.
func (v *verification) result() error {
	switch {
	case v.count[verify.Fault] > 0:
		return errReported
	case v.count[verify.Unjudged] > 0:
		return errUnjudged
	}
	return nil
}
