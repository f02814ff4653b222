package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"unicode"
)

// Page is a report as one HTML file that needs nothing else: no network, no script, no font. It can be read on a light or
// dark screen, on a phone and on paper. Whatever its texts hold is shown as text.
type Page struct {
	Title    string
	About    string // below the title
	Sections []Section
}

// Section is a part of a page under a heading.
type Section struct {
	Title string
	Text  []string // paragraphs
	Parts []Part   // in order; figures that follow each other stand side by side where there is room
}

// Part is a *Table, a *Figure, a *Grid or a Links.
type Part interface {
	html() (template.HTML, error)
}

// Links lead to other files, named relative to the page.
type Links []Link

// Link is a file and what the page calls it.
type Link struct{ Name, Path string }

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"part":    func(p Part) (template.HTML, error) { return p.html() },
	"style":   func() template.CSS { return template.CSS(figureStyle()) },
	"dark":    func() template.CSS { return darkScreen },
	"isRight": func(a Align) bool { return a == Right },
	"percent": Percent,
	"width":   func(share float64) string { return number(100 * min(1, max(0, share))) },
	"figure":  func(p Part) bool { _, is := p.(*Figure); return is },
	"uri":     func(png []byte) template.URL { return dataURI(png) },
}).Parse(pageText))

// HTML writes the page.
func (p *Page) HTML(w io.Writer) error {
	var b bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&b, "page", p); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func execute(name string, data any) (template.HTML, error) {
	var b strings.Builder
	err := pageTemplate.ExecuteTemplate(&b, name, data)
	return template.HTML(b.String()), err
}

func (t *Table) html() (template.HTML, error) { return execute("table", t) }

func (l Links) html() (template.HTML, error) { return execute("links", l) }

func (g *Grid) html() (template.HTML, error) { return execute("grid", g) }

func (f *Figure) html() (template.HTML, error) {
	return template.HTML(fmt.Sprintf("<figure>%s</figure>", f.element(""))), nil
}

// escape makes text safe in HTML and in XML, which cannot hold control characters.
func escape(s string) string {
	return template.HTMLEscapeString(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\ufffe' || r == '\uffff' {
			return ' '
		}
		return r
	}, s))
}
