// Package browsertest shows pages to a headless Chromium, for tests: what a
// person would see, asked for by script. Only tests import it.
package browsertest

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds each wait; a browser on a busy machine takes its time.
const patience = 60 * time.Second

// ShotsEnv names a directory that screenshots are written to, for people to look
// at; without it none are taken.
const ShotsEnv = "SLUICE_SCREENSHOTS"

// Browser is a Chromium of one test.
type Browser struct{ ctx context.Context }

// Start starts a browser that ends with the test, which it skips where there is
// none.
func Start(t *testing.T) *Browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no chromium in PATH: 'apt-get install chromium' has it, and deploy/test.sh installs it")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true),
		// A request to anywhere else must fail rather than leave the machine.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience),
	)
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium's sandbox does not work for root
	}
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancelAlloc)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("end chromium: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx}
}

// Page is one tab. Complaints and foreign requests are collected from its
// beginning.
type Page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	own      string // host of the page
	problems []string
}

// View is how a page is looked at.
type View struct {
	Width, Height int
	Dark          bool // what prefers-color-scheme says
}

// Open opens a page in a tab of its own, which is closed with the test.
func (b *Browser) Open(t *testing.T, address string, v View) *Page {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	p := &Page{t: t, own: u.Host}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(b.ctx, chromedp.WithListener(p.listen))
	t.Cleanup(cancel)
	if err := chromedp.Do(p.ctx); err != nil { // opens the tab; not with a context that ends
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, cdplog.Enable, cdp.Empty{})
	call(p, runtime.Enable, cdp.Empty{})
	p.Look(v)
	p.run(chromedp.Navigate(address))
	return p
}

// Look changes the size of the window and the preferred colours.
func (p *Page) Look(v View) {
	p.t.Helper()
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	p.run(chromedp.EmulateViewport(int64(v.Width), int64(v.Height)))
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

func (p *Page) listen(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			p.problems = append(p.problems, "console: "+string(e.Type))
		}
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, "exception: "+exceptionText(e.ExceptionDetails))
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			p.problems = append(p.problems, "log: "+e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Host != p.own {
			p.problems = append(p.problems, "request to another host: "+e.Request.URL)
		}
	}
}

// Problems returns what the browser has complained about so far: errors and
// warnings of the console, exceptions, breaches of the content policy, failed
// loads, and requests to another host than the page's.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

func exceptionText(d *runtime.ExceptionDetails) string {
	if d.Exception != nil && d.Exception.Description != "" {
		return d.Exception.Description
	}
	return d.Text
}

func (p *Page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.fail(err)
	}
}

func (p *Page) fail(err error) {
	p.t.Helper()
	p.t.Fatalf("page: %v; the browser complains: %q", err, p.Problems())
}

// call sends a command of the protocol.
func call[P, R any](p *Page, cmd cdp.Command[P, R], params P) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, cmd, params); err != nil {
		p.fail(err)
	}
}

// result runs an action that returns something.
func result[T any](p *Page, a chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		p.fail(err)
	}
	return v
}

// Eval runs an expression and returns what it is.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	return result(p, chromedp.Evaluate[T](expression))
}

// Click clicks what the selector finds.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.run(chromedp.Click(chromedp.CSS(selector)))
}

// Until waits until an expression is true. It asks again and again from here:
// a script in the page would be refused by its content policy.
func (p *Page) Until(expression string) {
	p.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !Eval[bool](p, "!!("+expression+")"); <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for %s; the browser complains: %q; the page says:\n%s",
				expression, p.Problems(), Eval[string](p, "document.body.innerText"))
		}
	}
}

// Shot writes a screenshot of the whole page where [ShotsEnv] is set.
func (p *Page) Shot(name string) {
	p.t.Helper()
	dir := os.Getenv(ShotsEnv)
	if dir == "" {
		return
	}
	png := result(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Flaws returns what is wrong with the layout: the page is wider than the
// window, or pieces of text overlap each other or stick out of the window.
func (p *Page) Flaws() []string {
	p.t.Helper()
	return Eval[[]string](p, flawsScript)
}

// flawsScript collects the boxes of all visible texts, cut to what the elements
// around them let through, and compares each with each.
const flawsScript = `(() => {
  const flaws = [], boxes = [], wide = document.documentElement;
  if (wide.scrollWidth > innerWidth) flaws.push('the page is ' + wide.scrollWidth + ' wide in a window of ' + innerWidth);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    if (!n.data.trim() || !n.parentElement.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(n);
    for (const r of range.getClientRects()) {
      let b = { left: r.left, right: r.right, top: r.top, bottom: r.bottom, text: n.data.trim(), node: n };
      for (let e = n.parentElement; e && e !== document.body; e = e.parentElement) {
        const s = getComputedStyle(e);
        if (s.overflowX === 'visible' && s.overflowY === 'visible') continue;
        const c = e.getBoundingClientRect();
        b = { ...b, left: Math.max(b.left, c.left), right: Math.min(b.right, c.right), top: Math.max(b.top, c.top), bottom: Math.min(b.bottom, c.bottom) };
      }
      if (b.right - b.left < 1 || b.bottom - b.top < 1) continue;
      if (b.left < -0.5 || b.right > innerWidth + 0.5) flaws.push('sticks out of the window: ' + b.text);
      boxes.push(b);
    }
  }
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const a = boxes[i], b = boxes[j];
    if (a.node === b.node) continue; // a line that ends in an ellipsis has two boxes
    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left), y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (x > 1 && y > 3) flaws.push('"' + a.text + '" and "' + b.text + '" overlap by ' + x.toFixed(0) + ' x ' + y.toFixed(0));
  }
  return flaws;
})()`
