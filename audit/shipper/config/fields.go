// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"time"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/internal/tomlfile"
)

// Bounds of the file.
const (
	maxSinks     = 16
	maxRecords   = 10_000
	maxBytes     = 8 << 20 // of a batch; the memory of the shipper follows from it
	maxText      = 1024
	leastTimeout = time.Second
	mostTimeout  = 10 * time.Minute
)

var fields = []tomlfile.Field[*Config]{
	{Path: "version", Set: func(*Config, any) string { return "" }}, // read before
	{Path: "directories.audit", Set: func(c *Config, v any) string { return tomlfile.Path(&c.Audit, v) }},
	{Path: "directories.checkpoints", Set: func(c *Config, v any) string { return tomlfile.Path(&c.Checkpoints, v) }},
	{Path: "sinks", Set: func(_ *Config, v any) string {
		if list, ok := v.([]any); !ok || len(list) > maxSinks {
			return fmt.Sprintf("up to %d tables [[sinks]]", maxSinks)
		}
		return "" // read by sinks
	}},
}

// sinkFields are those of every sink.
var sinkFields = []tomlfile.Field[*Sink]{
	{Path: "name", Set: func(s *Sink, v any) string {
		name, _ := v.(string)
		if !checkpoint.ValidName(name) {
			return "1 to 63 lower-case letters, digits and -"
		}
		s.Name = name
		return ""
	}},
	{Path: "type", Set: func(s *Sink, v any) string { return tomlfile.Word(&s.Type, v, types()...) }},
	{Path: "form", Set: func(s *Sink, v any) string { return tomlfile.Word(&s.Form, v, FormJSON, FormOCSF) }},
	{Path: "timeout", Set: func(s *Sink, v any) string { return tomlfile.Duration(&s.Timeout, v, leastTimeout, mostTimeout) }},
	{Path: "batch.records", Set: func(s *Sink, v any) string { return tomlfile.Int(&s.Batch.Records, v, 1, maxRecords) }},
	{Path: "batch.bytes", Set: func(s *Sink, v any) string { return quantity(&s.Batch.Bytes, v, 1<<10, maxBytes) }},
}

// A kind is what a type of sinks has of its own.
type kind struct {
	name     Type
	begin    func(*Sink)                                // makes its table, with what the file may leave out; nil: it has none
	fields   []tomlfile.Field[*Sink]                    // of its table, which has the type's name
	required []required                                 // of these fields
	check    func(f *tomlfile.File, s *Sink, at string) // looks at what no single field shows; at is the path of its table; nil: nothing
}

// required is a field that has no default, and what is expected of it.
type required struct{ path, expected string }

var kinds = []kind{
	{TypeOTLP, func(s *Sink) { s.OTLP = defaultOTLP() }, otlpFields, otlpRequired, checkOTLP},
	{TypeKafka, func(s *Sink) { s.Kafka = defaultKafka() }, kafkaFields, kafkaRequired, checkKafka},
	{TypeNATS, func(s *Sink) { s.NATS = &NATS{} }, natsFields, natsRequired, checkNATS},
	{TypeFile, func(s *Sink) { s.File = defaultFile() }, fileFields, fileRequired, nil},
	{name: TypeStdout},
}

// types are those of sinks.
func types() (names []Type) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// sinks reads the array of sinks. What is not as it should be is noted in f.
func sinks(f *tomlfile.File) (all []Sink) {
	list, ok := f.Doc["sinks"].([]any)
	if len(list) == 0 && (ok || f.Doc["sinks"] == nil) {
		f.Errorf("sinks", "is missing", "expected a table [[sinks]] for each place to ship to")
	}
	names := map[string]bool{}
	for i, item := range list {
		at := fmt.Sprintf("sinks[%d]", i)
		table, ok := item.(map[string]any)
		if !ok {
			f.Errorf(at, tomlfile.Show(item)+" is not a sink", "expected a table")
			continue
		}
		s := sink(f, at, table)
		if s.Name != "" && names[s.Name] {
			f.Errorf(at+".name", tomlfile.Show(s.Name)+" is also another sink's", "expected a name of its own: its checkpoint is called so")
		}
		names[s.Name] = true
		all = append(all, s)
	}
	return all
}

func sink(f *tomlfile.File, at string, table map[string]any) Sink {
	s := defaultSink()
	require(f, at, table, []required{{"name", "a name of your choice"}, {"type", diagnostic.OneOf(words(types()))}})
	i := slices.IndexFunc(kinds, func(k kind) bool { return table["type"] == string(k.name) })
	if i < 0 { // what it may have beside what all have is not known
		tomlfile.Fill(f, at, pick(table, sinkFields), &s, sinkFields)
		return s
	}
	k := kinds[i]
	if k.begin != nil {
		k.begin(&s)
	}
	own := slices.Clone(sinkFields)
	for _, field := range k.fields {
		field.Path = string(k.name) + "." + field.Path
		own = append(own, field)
	}
	tomlfile.Fill(f, at, table, &s, own)
	at += "." + string(k.name)
	inner, _ := table[string(k.name)].(map[string]any)
	require(f, at, inner, k.required)
	if k.check != nil {
		k.check(f, &s, at)
	}
	return s
}

// require notes what is missing in a table.
func require(f *tomlfile.File, at string, table map[string]any, fields []required) {
	for _, r := range fields {
		if table[r.path] == nil {
			f.Errorf(at+"."+r.path, "is missing", "expected "+r.expected)
		}
	}
}

func words(types []Type) (all []string) {
	for _, t := range types {
		all = append(all, string(t))
	}
	return all
}

// pick returns the part of a table that fields are of.
func pick(table map[string]any, fields []tomlfile.Field[*Sink]) map[string]any {
	part := map[string]any{}
	for _, f := range fields {
		if v, ok := table[f.Path]; ok {
			part[f.Path] = v
		}
	}
	return part
}

// tlsFields are those of a table for TLS, which is where of returns it, and is made when it has a field.
func tlsFields(of func(*Sink) **TLS) []tomlfile.Field[*Sink] {
	table := func(s *Sink) *TLS {
		to := of(s)
		if *to == nil {
			*to = &TLS{}
		}
		return *to
	}
	return []tomlfile.Field[*Sink]{
		{Path: "tls.ca", Set: func(s *Sink, v any) string { return tomlfile.Path(&table(s).CA, v) }},
		{Path: "tls.cert", Set: func(s *Sink, v any) string { return tomlfile.Path(&table(s).Cert, v) }},
		{Path: "tls.key", Set: func(s *Sink, v any) string { return tomlfile.Path(&table(s).Key, v) }},
		{Path: "tls.server_name", Set: func(s *Sink, v any) string { return tomlfile.Text(&table(s).ServerName, v, 253) }},
	}
}

// checkTLS looks at what no field of it shows; at is the path of the table above it.
func checkTLS(f *tomlfile.File, t *TLS, at string) {
	if t != nil && (t.Cert == "") != (t.Key == "") {
		f.Errorf(at+".tls", "has only one of cert and key", "expected both, or none")
	}
}

func quantity(to *int64, v any, least, most int64) string {
	s, _ := v.(string)
	n, err := cgroups.ParseBytes(s)
	if err != nil || n < least || n > most {
		return fmt.Sprintf("a quantity of bytes from %s to %s, such as \"1Mi\"", cgroups.FormatBytes(least), cgroups.FormatBytes(most))
	}
	*to = n
	return ""
}
