// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/cluster/question"
	"metsuke.dev/metsuke/cluster/reader"
	"metsuke.dev/metsuke/node/answer/form"
)

// answering is a client of an API server whose nodes answer with a text.
func answering(t *testing.T, text string, cut bool) *reader.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
		if cut {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	client, err := reader.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func line(namespace, pod string) string {
	e := audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}}
	r := record.Record{Identity: audit.Identity{Namespace: namespace, Pod: pod}, Event: e, Seq: 1}
	return string(r.Append(nil)) + "\n"
}

// A node that was taken over is believed nothing of other pods, and an answer that was cut off is not taken for a whole one.
func TestLyingNode(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		cut        bool
		got        int // records
		want       string
	}{
		{"as it should", line("a", "p") + line("a", "p"), false, 2, ""},
		{"of another namespace", line("a", "p") + line("b", "p"), false, 1, "not asked about"},
		{"of another pod", line("a", "q"), false, 0, "not asked about"},
		{"something was passed over", `{"problem":"damaged"}` + "\n" + line("a", "p"), false, 1, "damaged"},
		{"no record", "<html>\n", false, 0, "no record"},
		{"cut off", line("a", "p"), true, 1, "cut off"},
		{"without an end", strings.Repeat("x", audit.MaxRecord+2), false, 0, "cut off"},
	} {
		s := &source{q: &question.Question{About: question.Log, Node: "n", Namespace: "a", Pod: "p"}, out: make(chan entry, 10)}
		err := s.read(t.Context(), answering(t, tt.text, tt.cut))
		if len(s.out) != tt.got || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d records, %v", tt.name, len(s.out), err)
		}
	}
	other := `{"items":[{"pod":{"namespace":"a","name":"p"}},{"pod":{"namespace":"b","name":"p"}}]}`
	if list, err := ofNode(t.Context(), answering(t, other, false), "a", "n"); len(list) != 1 || err == nil {
		t.Errorf("%v %v", list, err)
	}
	for _, text := range []string{`{"items":[{}]}`, `[`, `{"items":1}`} {
		if list, err := ofNode(t.Context(), answering(t, text, false), "a", "n"); len(list) != 0 || err == nil {
			t.Errorf("%s: %v %v", text, list, err)
		}
	}
	if err := answering(t, "{}", true).Get(t.Context(), &question.Question{About: question.Doctor, Node: "n"}, &form.DoctorReport{}); err == nil {
		t.Error("an answer that was cut off looks whole")
	}
}
