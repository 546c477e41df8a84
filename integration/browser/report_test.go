// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"bytes"
	"flag"
	"fmt"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"metsuke.dev/metsuke/audit/report/reporttest"
)

var update = flag.Bool("update", false, "make the screenshot of the documentation anew")

// prefer has the page shown as to a user who prefers a colour scheme.
func (x *tab) prefer(scheme string) {
	x.t.Helper()
	call(x, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// resize has the page shown on a screen of so many pixels.
func (x *tab) resize(width, height int64) {
	x.t.Helper()
	call(x, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}

// A usual page shows what its streams hold, and neither loads nor says anything.
func TestSession(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	if title := x.text("title"); title != "team-a/coder · Metsuke audit report" {
		t.Errorf("title %q", title)
	}
	if word := x.text(".verdict .word"); word != "proven" {
		t.Errorf("evidence: %q", word)
	}
	for selector, want := range map[string]int{
		".proc": 25, "section[aria-labelledby=denials] tbody tr": 6, "section[aria-labelledby=addresses] tbody tr": 11,
		"section[aria-labelledby=removed] tbody tr": 6, "section[aria-labelledby=sessions] tbody tr": 1,
		"section[aria-labelledby=pressure] tbody tr": 4, "section[aria-labelledby=gaps] tbody tr": 1, ".mark.oom": 1, "rect.session": 1, "rect.gap": 1,
		"script": 1, "style": 1, "table th:not([scope=col])": 0, "svg[role=img]:not([aria-label])": 0,
	} {
		x.count(selector, want)
	}
	// What is in tables is there for whoever reads by ear: each cell has its column's heading.
	if n := ask[int](x, "Array.from(document.querySelectorAll('tbody tr')).filter((r) => r.cells.length !== r.closest('table').rows[0].cells.length).length"); n > 0 {
		t.Errorf("%d rows have other cells than their table has columns", n)
	}
	x.quiet()
}

// Rows are shut and opened, by the pointer and by the keyboard.
func TestRowsCollapse(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	all := x.seen(".proc")
	x.run("document.querySelector('details.proc > summary').scrollIntoView({block: 'center'})")
	x.click("details.proc > summary .pid")
	shut := x.seen(".proc")
	if shut >= all {
		t.Errorf("%d processes are seen, and %d once the first one is shut", all, shut)
	}
	x.do(chromedp.Focus(chromedp.CSS("details.proc > summary")), chromedp.KeyEvent(kb.Enter))
	if n := x.seen(".proc"); n != all {
		t.Errorf("%d processes are seen once it is open again, %d before", n, all)
	}
	x.click("[data-fold=shut]")
	if n := x.seen(".proc .proc"); n != 0 {
		t.Errorf("%d processes are seen below those that are shut", n)
	}
	x.quiet()
}

// What is looked for is found, and only that.
func TestFind(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	x.do(chromedp.SendKeys(chromedp.CSS("#find"), "DOCKER.sock"))
	if rows, processes := x.seen("tbody tr"), x.seen(".proc"); rows != 2 || processes != 2 {
		t.Errorf("found: %d rows, %d processes", rows, processes)
	}
	x.run("document.getElementById('find').value = ''")
	x.click("#only")
	if rows := x.seen("section[aria-labelledby=denials] tbody tr"); rows != 6 {
		t.Errorf("%d rows of denials", rows)
	}
	if rows := x.seen("section[aria-labelledby=removed] tbody tr"); rows != 0 {
		t.Errorf("%d rows of what was not denied", rows)
	}
	x.quiet()
}

// The time line is zoomed by buttons, and by dragging, which shuts nothing.
func TestZoom(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	wide := func() string {
		return ask[string](x, "Array.from(new Set(Array.from(document.querySelectorAll('.zoom')).map((z) => z.getAttribute('width')))).join()")
	}
	x.click("[data-zoom=in]")
	if got := wide(); got != "200%" || !strings.HasSuffix(x.text("#range"), "UTC") {
		t.Errorf("zoomed in: %s, %s", got, x.text("#range"))
	}
	x.click("[data-zoom=all]")
	if got := wide(); got != "100%" || x.text("#range") != "" {
		t.Errorf("all: %s, %s", got, x.text("#range"))
	}
	all := x.seen(".proc")
	box := ask[[]float64](x, `(() => {
		const lane = document.querySelector("details.proc > summary .plot");
		lane.scrollIntoView({block: "center"});
		const b = lane.getBoundingClientRect();
		return [b.x, b.y + b.height / 2, b.width];
	})()`)
	x.drag(box[0]+box[2]/4, box[0]+box[2]/2, box[1])
	if got := wide(); got != "400%" {
		t.Errorf("dragged over a quarter: %s", got)
	}
	if n := x.seen(".proc"); n != all {
		t.Errorf("%d processes are seen once a lane was dragged over, %d before", n, all)
	}
	x.quiet()
}

// The page says all without its script.
func TestWithoutScript(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	with := x.seen("body *")
	call(x, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	x.do(chromedp.Reload())
	if n := x.seen("#tools"); n != 0 {
		t.Error("tools are shown that do nothing")
	}
	if n := x.seen("body *:not(#tools *)"); n < with-40 {
		t.Errorf("%d elements are seen without a script, %d with it", n, with)
	}
	x.run("document.querySelector('details.proc > summary').scrollIntoView({block: 'center'})")
	all := x.seen(".proc")
	x.click("details.proc > summary .pid")
	if n := x.seen(".proc"); n >= all {
		t.Errorf("%d of %d processes are seen once the first one is shut", n, all)
	}
	x.quiet()
}

// contrasts are texts whose contrast with what is behind them is below what WCAG 2.2 (1.4.3, AA) demands.
const contrasts = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgba = (color) => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = color;
		canvas.fillRect(0, 0, 1, 1);
		return canvas.getImageData(0, 0, 1, 1).data;
	};
	const light = ([r, g, b]) => {
		const [R, G, B] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
		return 0.2126 * R + 0.7152 * G + 0.0722 * B;
	};
	const poor = new Set();
	for (const e of document.querySelectorAll("body *")) {
		const own = Array.from(e.childNodes).some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim() !== "");
		if (!own || !e.checkVisibility() || e.closest("title, script")) continue;
		const style = getComputedStyle(e);
		let behind = e;
		while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
		const back = light(rgba(behind ? getComputedStyle(behind).backgroundColor : "white"));
		const text = light(rgba(e instanceof SVGElement ? style.fill : style.color));
		const ratio = (Math.max(back, text) + 0.05) / (Math.min(back, text) + 0.05);
		if (ratio < 4.5) poor.add(e.tagName + "." + e.getAttribute("class") + " " + ratio.toFixed(2));
	}
	return Array.from(poor);
})()`

// Both colour schemes are there, and can be read.
func TestColours(t *testing.T) {
	x := open(t, report(t, "coder", reporttest.Session()), 1280, 900)
	backgrounds := map[string]bool{}
	for _, name := range []string{"light", "dark"} {
		x.prefer(name)
		backgrounds[ask[string](x, "getComputedStyle(document.body).backgroundColor")] = true
		if poor := ask[[]string](x, contrasts); len(poor) > 0 {
			t.Errorf("%s: too little contrast: %q", name, poor)
		}
	}
	if len(backgrounds) != 2 {
		t.Errorf("backgrounds: %v", backgrounds)
	}
	x.quiet()
}

// tooWide are elements that reach beyond the screen, and nothing around them cuts them off.
const tooWide = `(() => {
	const cut = (e) => e && (getComputedStyle(e).overflowX !== "visible" || cut(e.parentElement));
	const all = Array.from(document.querySelectorAll("body *")).filter((e) => e.getBoundingClientRect().right > innerWidth && !cut(e));
	return Array.from(new Set(all.map((e) => e.parentElement.className + " > " + e.tagName + "." + e.getAttribute("class")))).slice(0, 20);
})()`

// On a phone nothing is wider than the screen, and on paper nothing is shut.
func TestNarrowAndPaper(t *testing.T) {
	for _, instances := range [][]reporttest.Instance{reporttest.Session(), reporttest.Hostile()} {
		x := open(t, report(t, instances[0].Identity.Pod, instances), 1280, 900)
		x.resize(400, 800)
		if n := ask[int](x, "document.documentElement.scrollWidth"); n > 400 {
			t.Errorf("it is %d pixels wide: %q", n, ask[[]string](x, tooWide))
		}
		x.run("for (const d of document.querySelectorAll('details')) d.open = false")
		call(x, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		if n := ask[int](x, "Array.from(document.querySelectorAll('details .proc, details .instance')).filter((e) => e.getBoundingClientRect().height === 0).length"); n > 0 {
			t.Errorf("%d rows are not on paper", n)
		}
		x.quiet()
	}
}

// The documentation shows a page as it is. -update makes the picture anew.
func TestScreenshot(t *testing.T) {
	const (
		file          = "../../docs/report.png"
		width, height = 1280, 1560
		most          = 300 << 10 // bytes
	)
	if *update {
		x := open(t, report(t, "coder", reporttest.Session()), width, height)
		x.prefer("light")
		x.resize(width, height)
		picture, err := chromedp.Run(x, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, picture, 0o644); err != nil { //nolint:gosec // it is no secret
			t.Fatal(err)
		}
	}
	picture, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	size, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width != width || size.Height != height || len(picture) > most {
		t.Errorf("%s: %v, %s, %d bytes", file, err, fmt.Sprint(size.Width, "x", size.Height), len(picture))
	}
}
