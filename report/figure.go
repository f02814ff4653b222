package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Figure is a drawing that can be written as a file or stand in a page. It is SVG that needs nothing else, follows the
// reader's choice of a light or dark screen, and tells series apart by mark and label as well as by colour.
type Figure struct {
	Title string

	width, height float64
	body          strings.Builder
}

// SVG writes the figure as a file of its own.
func (f *Figure) SVG(w io.Writer) error {
	_, err := io.WriteString(w, f.element("<style>"+figureStyle()+"</style>\n")+"\n")
	return err
}

// element is the figure; in a page its style sheet is the page's.
func (f *Figure) element(style string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]s %[2]s" width="%[1]s" height="%[2]s" role="img" class="figure">`+
		"\n<title>%[3]s</title>\n%[4]s%[5]s</svg>", number(f.width), number(f.height), escape(f.Title), style, &f.body)
}

// Colours of marks and lines, in the order in which series take them. Any two can be told apart with normal vision and
// with each of the three dichromacies, and all stand out from the ground.
var (
	lightInks = []string{"#0b5fb8", "#e0600a", "#0c9a74", "#8c1d5a", "#9a86ec", "#6f5206"}
	darkInks  = []string{"#3f93ea", "#f98a48", "#35d6a6", "#b9609c", "#c3c6ff", "#f1dc5a"}
)

const (
	lightGround = "#ffffff"
	darkGround  = "#17191d"

	// darkScreen leaves out paper: what is printed is always light.
	darkScreen = "@media screen and (prefers-color-scheme: dark)"
)

// figureStyle is the style sheet of all figures. Its names are theirs alone, as those of figures in one page are shared.
func figureStyle() string {
	var b strings.Builder
	scheme := func(ground, ink, soft, line string, inks []string) {
		fmt.Fprintf(&b, ".figure{--ground:%s;--ink:%s;--soft:%s;--line:%s", ground, ink, soft, line)
		for i, c := range inks {
			fmt.Fprintf(&b, ";--s%d:%s", i, c)
		}
		b.WriteString("}")
	}
	scheme(lightGround, "#1b1d21", "#5b616b", "#dfe2e7", lightInks)
	b.WriteString(darkScreen + "{")
	scheme(darkGround, "#eceef1", "#a3abb8", "#343941", darkInks)
	b.WriteString("}")
	b.WriteString(`.figure{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif}` +
		`.figure text{fill:var(--ink);font-size:13px}.figure .title{font-size:15px;font-weight:600}` +
		`.figure .soft{fill:var(--soft);font-size:12px}.figure .ground{fill:var(--ground)}` +
		`.figure .grid{stroke:var(--line);stroke-width:1}.figure .axis{stroke:var(--soft);stroke-width:1}` +
		`.figure .chosen{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}` +
		`.figure .lead{stroke:var(--soft);stroke-width:.75}.figure .tie{stroke-width:1;stroke-dasharray:1 3}.figure .whisker{stroke-width:1.25;opacity:.55;fill:none}` +
		`.figure .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}` +
		`.figure .mark{stroke:var(--ground);stroke-width:1.25}.figure .band{opacity:.16;stroke:none}.figure .bar{stroke:none}`)
	for i := range lightInks {
		fmt.Fprintf(&b, ".figure .s%d{stroke:var(--s%d)}.figure .f%d{fill:var(--s%d)}", i, i, i, i)
	}
	return b.String()
}

// newFigure is an empty figure with its title, which is broken where it is wider than the figure.
func newFigure(title string, width, height float64) (f *Figure, top float64) {
	f = &Figure{Title: title, width: width}
	lines := wrapWidth(title, titleSize, width-2*margin)
	top = margin
	f.height = height + titleSize*1.3*float64(len(lines))
	f.printf(`<rect class="ground" width="%s" height="%s" rx="6"/>`, number(width), number(f.height))
	for _, line := range lines {
		top += titleSize * 1.3
		f.text(margin, top-titleSize*0.35, "start", "title", line)
	}
	return f, top
}

// Sizes of text and the room around a figure, in its own units; the style sheet says the same.
const (
	titleSize = 15.
	textSize  = 13.
	softSize  = 12.
	margin    = 14.
)

// printf adds an element. Text from outside goes through text and tip alone, which escape it.
func (f *Figure) printf(format string, args ...any) {
	fmt.Fprintf(&f.body, format+"\n", args...)
}

// text writes a line whose baseline begins, ends or is centred at x, y.
func (f *Figure) text(x, y float64, anchor, class, s string) {
	f.printf(`<text x="%s" y="%s" text-anchor="%s" class="%s">%s</text>`, number(x), number(y), anchor, class, escape(s))
}

// upright writes a line that reads upwards, centred at x, y.
func (f *Figure) upright(x, y float64, class, s string) {
	f.printf(`<text transform="translate(%s %s) rotate(-90)" text-anchor="middle" class="%s">%s</text>`,
		number(x), number(y), class, escape(s))
}

func (f *Figure) line(class string, x1, y1, x2, y2 float64) {
	f.printf(`<path class="%s" d="M%s %sL%s %s"/>`, class, number(x1), number(y1), number(x2), number(y2))
}

// tip is what a mark says when it is pointed at.
func tip(s string) string { return "<title>" + escape(s) + "</title>" }

// mark draws the sign of a series at a point; says is what it tells when it is pointed at.
func (f *Figure) mark(series int, x, y float64, says string) {
	shapes := []string{
		"m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", // circle
		"m-4-4h8v8h-8z",                   // square
		"m0-5.5l5 9h-10z",                 // triangle
		"m0-5.5l5.5 5.5-5.5 5.5-5.5-5.5z", // diamond
		"m0 5.5l5-9h-10z",                 // triangle on its tip
		"m-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z", // cross
	}
	f.printf(`<path class="mark f%d" d="M%s %s%s">%s</path>`, series%len(lightInks), number(x), number(y), shapes[series%len(shapes)], tip(says))
}

// number writes a coordinate, to a tenth.
func number(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// textWidth is about how wide a line is at a font size: the fonts are the reader's, so it is taken generously.
func textWidth(s string, size float64) float64 {
	var em float64
	for _, r := range s {
		switch {
		case strings.ContainsRune("iljtfI.,:;'|!()[] -", r):
			em += 0.34
		case strings.ContainsRune("mwMW%@", r) || r > 0x2e80:
			em += 0.95
		case r >= 'A' && r <= 'Z':
			em += 0.68
		default:
			em += 0.57
		}
	}
	return em * size
}

// wrapWidth breaks text between words into lines of at most a width; a word that is wider is cut.
func wrapWidth(s string, size, width float64) []string {
	var lines []string
	for word := range strings.FieldsSeq(s) {
		word = clip(word, size, width)
		if last := len(lines) - 1; last >= 0 && textWidth(lines[last]+" "+word, size) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// clip cuts text that is wider than a width.
func clip(s string, size, width float64) string {
	if textWidth(s, size) <= width {
		return s
	}
	for s != "" && textWidth(s+"…", size) > width {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s + "…"
}
