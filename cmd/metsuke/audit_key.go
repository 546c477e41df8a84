// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/config"
)

func newAuditKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the public key that this node signs its streams with",
		Long: `Print the fingerprint and the public half, in PEM, of the key that this node signs its audit streams with. Keep it where the node's root
cannot change it: who verifies with a key that comes with the evidence proves nothing.`,
		Example: `  metsuke audit key > node-1.pem`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			key, err := signature.Load(cfg.Audit.Key)
			if errors.Is(err, fs.ErrNotExist) && !cfg.Audit.KeyNamed {
				return fmt.Errorf("%w: the first pod makes it", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Fingerprint: %s\n%s", key.Fingerprint(), key.PEM())
			return nil
		},
	}
	addConfigFlag(cmd, "configuration file that names the key")
	return cmd
}

// addConfigFlag adds --config.
func addConfigFlag(cmd *cobra.Command, about string) {
	cmd.Flags().String("config", "", about+" (default "+config.DefaultPath+", if it exists)")
	_ = cmd.MarkFlagFilename("config", "toml")
}

// loadConfig reads the configuration that --config names, or the default one.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadOrDefault(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return cfg, nil
}
