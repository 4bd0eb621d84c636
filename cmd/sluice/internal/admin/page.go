package admin

import (
	"embed"
	"net/http"
	"path"
)

// PagePath is where the status page for people is served. What it needs is below
// it, and nothing comes from elsewhere.
const PagePath = "/status"

//go:embed page
var pageFiles embed.FS

// pagePolicy lets a page load its own script, style and icon and talk to this
// server, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// servePage serves the embedded file page/name.
func servePage(name string) http.HandlerFunc {
	body, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err) // a file is missing in the source
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", pageTypes[path.Ext(name)])
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		_, _ = w.Write(body) // a client that has gone is its own affair
	}
}

// handlePage adds the page to mux.
func handlePage(mux *http.ServeMux) {
	mux.HandleFunc("GET "+PagePath, servePage("index.html"))
	for _, name := range []string{"style.css", "page.js", "tree.js", "draw.js", "icon.svg"} {
		mux.HandleFunc("GET "+PagePath+"/"+name, servePage(name))
	}
}
