// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"metsuke.dev/metsuke/audit/report/reporttest"
)

const (
	chromium = "chromium" // Debian's; make install-deps installs it
	deadline = 10 * time.Minute
)

// metsuke is the program under test: that in METSUKE_BIN, or else one that TestMain builds.
var metsuke = filepath.Join(os.Getenv("METSUKE_BIN"), "metsuke")

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if filepath.IsAbs(metsuke) {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "metsuke-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	metsuke = filepath.Join(dir, "metsuke")
	build := exec.Command("go", "build", "-o", metsuke, "./cmd/metsuke")
	build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build metsuke:", err)
		return 1
	}
	return m.Run()
}

// report has metsuke write the page of streams, and returns its path.
func report(t *testing.T, pod string, instances []reporttest.Instance) string {
	t.Helper()
	dir := t.TempDir()
	root, key, file := filepath.Join(dir, "audit"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "report.html")
	reporttest.Write(t, root, reporttest.Key(t), instances)
	if err := os.WriteFile(key, reporttest.Key(t).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(metsuke, "audit", "report", pod, "--dir", root, "--key", key, "--index", "", "-o", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// tab is a page that is open in a browser of its own.
type tab struct {
	context.Context
	t    *testing.T
	file string

	mu       sync.Mutex
	requests []string // all that was asked for
	blocked  []string // numbers of requests that the page's policy did not let go
	numbers  []string // of requests
	said     []string // what the console and the browser's log say, and what was thrown
	refused  []string // what the page's policy did not allow
}

// open starts a browser in a network namespace where there is nothing, not even the loopback interface up, and opens a file in it.
func open(t *testing.T, file string, width, height int) *tab {
	t.Helper()
	path, err := exec.LookPath(chromium)
	if err != nil {
		t.Fatalf("%v: make install-deps installs it", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(width, height), chromedp.WSURLReadTimeout(deadline),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
		}),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-extensions", "disable-dev-shm-usage",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	allocator, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	inTab, shut := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(inTab); err != nil {
			t.Errorf("the browser does not end: %v", err)
		}
		shut()
	})
	x := &tab{Context: inTab, t: t, file: file}
	if err := chromedp.Listen(inTab, x.event); err != nil {
		t.Fatal(err)
	}
	call(x, network.Enable, network.EnableParams{})
	call(x, log.Enable, cdp.Empty{})
	call(x, runtime.Enable, cdp.Empty{})
	call(x, audits.Enable, cdp.Empty{})
	x.do(chromedp.Navigate(x.url()))
	return x
}

func (x *tab) url() string { return (&url.URL{Scheme: "file", Path: x.file}).String() }

// event takes note of what must not happen.
func (x *tab) event(event any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		x.requests, x.numbers = append(x.requests, e.Request.URL), append(x.numbers, string(e.RequestID))
	case *network.EventLoadingFailed:
		if e.BlockedReason == network.BlockedReasonCsp {
			x.blocked = append(x.blocked, string(e.RequestID))
		}
	case *network.EventWebSocketCreated:
		x.requests, x.numbers = append(x.requests, e.URL), append(x.numbers, string(e.RequestID))
	case *log.EventEntryAdded:
		x.said = append(x.said, e.Entry.Text)
	case *runtime.EventConsoleAPICalled:
		x.said = append(x.said, fmt.Sprint(e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		x.said = append(x.said, (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *page.EventJavascriptDialogOpening:
		x.said = append(x.said, "dialog: "+e.Message)
	case *audits.EventIssueAdded:
		if e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			d := e.Issue.Details.ContentSecurityPolicyIssueDetails
			x.refused = append(x.refused, d.ViolatedDirective+" "+d.BlockedURL)
		}
	}
}

// quiet fails the test unless the page asked for nothing but itself, and neither it nor the browser had anything to say.
func (x *tab) quiet() {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.requests) == 0 || slices.ContainsFunc(x.requests, func(r string) bool { return r != x.url() }) {
		x.t.Errorf("the page asked for %q", x.requests)
	}
	if len(x.said) > 0 || len(x.refused) > 0 {
		x.t.Errorf("said: %q; against its policy: %q", x.said, x.refused)
	}
}

func (x *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	x.t.Helper()
	if err := chromedp.Do(x, steps...); err != nil {
		x.t.Fatal(err)
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](x *tab, command cdp.Command[P, R], params P) {
	x.t.Helper()
	if _, err := chromedp.Call(x, command, params); err != nil {
		x.t.Fatal(err)
	}
}

// ask evaluates an expression in the page. The page's policy does not hold for what DevTools evaluate.
func ask[T any](x *tab, expression string) T {
	x.t.Helper()
	answer, err := chromedp.Run(x, chromedp.Evaluate[T](expression))
	if err != nil {
		x.t.Fatal(err)
	}
	return answer
}

// run evaluates statements in the page.
func (x *tab) run(statements string) {
	x.t.Helper()
	ask[chromedp.Void](x, statements)
}

// click clicks on the first element of a selector.
func (x *tab) click(selector string) {
	x.t.Helper()
	x.do(chromedp.Click(chromedp.CSS(selector)))
}

// number is how many elements there are.
func (x *tab) number(selector string) int {
	x.t.Helper()
	return ask[int](x, fmt.Sprintf("document.querySelectorAll(%q).length", selector))
}

// seen is how many of them are shown.
func (x *tab) seen(selector string) int {
	x.t.Helper()
	return ask[int](x, fmt.Sprintf("Array.from(document.querySelectorAll(%q)).filter((e) => e.checkVisibility()).length", selector))
}

// count demands a number of elements.
func (x *tab) count(selector string, want int) {
	x.t.Helper()
	if n := x.number(selector); n != want {
		x.t.Errorf("%d of %s, want %d", n, selector, want)
	}
}

func (x *tab) text(selector string) string {
	x.t.Helper()
	return strings.Join(strings.Fields(ask[string](x, fmt.Sprintf("document.querySelector(%q).textContent", selector))), " ")
}
