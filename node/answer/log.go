// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/cluster/question"
)

// stallTime is how long a reader of a stream may take nothing. It then makes place for others.
const stallTime = 30 * time.Second

// maxKept bounds what is kept of the last records for one reader, in bytes: a workload makes its records as long as it likes.
const maxKept = 2 << 20

// log sends records as they are stored. A reader that is slow is waited for, and holds up nobody but itself: shims write on. What had to
// be passed over is a line of the form question.Problem. An answer that ends too early is cut off, so that it does not look whole.
func (s *Server) log(w http.ResponseWriter, r *http.Request, q *question.Question) {
	ctx := r.Context()
	dirs, err := s.Directories()
	if err != nil {
		fail(ctx, w, err)
		return
	}
	w.Header().Set("Content-Type", question.Records)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	out := &lines{w: w, control: http.NewResponseController(w), stall: s.stall, follow: q.Follow}
	if err := out.write(nil); err != nil {
		return
	}
	_ = out.control.Flush() // the reader learns at once that it is being answered
	err = query.Read(ctx, filepath.Join(s.Root, dirs.Audit), q.Filter(), query.Options{
		Last: q.Lines, LastBytes: maxKept, Follow: q.Follow,
		Problem: func(err error) {
			logged(ctx, err)
			out.problem()
		},
	}, func(e query.Entry) error {
		if !ofCluster(e.Identity.PodUID) {
			return nil
		}
		return out.write(e.Line)
	})
	if err == nil || errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil { // the directory does not exist before the first pod
		return
	}
	if ctx.Err() == nil {
		logged(ctx, err)
	}
	panic(http.ErrAbortHandler)
}

// lines writes to a reader, which must not stand still for longer than stall.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	follow  bool
	told    bool
}

func (l *lines) write(line []byte) error {
	err := l.control.SetWriteDeadline(time.Now().Add(l.stall))
	if err == nil {
		_, err = l.w.Write(line)
	}
	if err == nil && l.follow {
		err = l.control.Flush()
	}
	return err
}

// problem says once that something was passed over. What and where is the node's business; its agent's log has it.
func (l *lines) problem() {
	if l.told {
		return
	}
	l.told = true
	line, _ := json.Marshal(question.Problem{Problem: "parts of the streams could not be read; the log of the node's agent says which"})
	_ = l.write(append(line, '\n')) // what is written next fails too
}
