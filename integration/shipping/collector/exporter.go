// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/plog"
)

// config is of the exporter `append`.
type config struct {
	// Path is a file. While it is not there, what is exported fails, as if what is behind the collector were away.
	Path  string                                                   `mapstructure:"path"`
	Queue configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`
	Retry configretry.BackOffConfig                                `mapstructure:"retry_on_failure"`
}

// newFactory is of an exporter that appends each request to a file, as a line of OTLP's JSON form. Unlike the file exporter of others it
// has written what it says that it has.
func newFactory() exporter.Factory {
	defaults := func() component.Config {
		return &config{Queue: configoptional.Default(exporterhelper.NewDefaultQueueConfig()), Retry: configretry.NewDefaultBackOffConfig()}
	}
	return exporter.NewFactory(component.MustNewType("append"), defaults, exporter.WithLogs(newLogs, component.StabilityLevelStable))
}

func newLogs(ctx context.Context, settings exporter.Settings, of component.Config) (exporter.Logs, error) {
	c := of.(*config)
	push := func(_ context.Context, logs plog.Logs) error { return appendLine(c.Path, logs) }
	return exporterhelper.NewLogs(ctx, settings, of, push, exporterhelper.WithQueue(c.Queue), exporterhelper.WithRetry(c.Retry))
}

func appendLine(path string, logs plog.Logs) error {
	line, err := (&plog.JSONMarshaler{}).MarshalLogs(logs)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
