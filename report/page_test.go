package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

const hostile = `</title></style></svg><script>alert(1)</script><img src=x onerror=alert(1)>"'&` + "\x00\x1b\u2028"

// A page of everything, with hostile text wherever text from outside can stand.
func hostilePage(t *testing.T) *Page {
	t.Helper()
	conditions := Conditions{Data: hostile, Images: 1, Norm: hostile, Epsilon: hostile}
	accuracy := Accuracy{Attack: hostile, Hits: 1, Total: 2, Low: 0.1, High: 0.9, WorstClass: hostile, WorstAccuracy: 0.5}
	clean := accuracy
	clean.Attack = "clean"
	models := []Model{{Name: hostile, Accuracies: []Accuracy{clean, accuracy}, Selection: hostile}}
	var parts []Part
	add := func(f *Figure, err error) {
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, f)
	}
	add(Scatter(hostile, conditions, hostile, models))
	add(WorstClasses(hostile, conditions, hostile, models))
	add(Classes(hostile, conditions, hostile, []Class{{hostile, clean, accuracy}}))
	curves := []Curve{{hostile, []Point{{1, 2, 1, 3}, {2, 3, 3, 3}}}}
	add(AgainstRadius(hostile, hostile, curves))
	add(AgainstEpoch(hostile, hostile, 1, curves))
	e, err := Picture(1, 1, 3, []float32{0, 0, 0}, []float32{1, 1, 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	chances := []Chance{{Class: hostile, Probability: math.NaN()}, {Class: hostile, Probability: 7}}
	e.Class, e.Answers = hostile, []Answer{{Who: hostile, Before: chances, After: chances}, {Who: hostile}}
	e.Perturbed = []byte(hostile)
	parts = append(parts, Models(hostile, conditions, models), Attacks(hostile, conditions, hostile, models[0].Accuracies),
		&Grid{Examples: []Example{e}, Amplified: 8}, Links{{hostile, hostile}, {"x", "javascript:alert(1)"}})
	return &Page{Title: hostile, About: hostile, Sections: []Section{{Title: hostile, Text: []string{hostile}, Parts: parts}}}
}

// Whatever the texts are, the page has no element, attribute or address of theirs.
func TestPageShowsTextAsText(t *testing.T) {
	page := text(t, hostilePage(t).HTML)
	elements := "!DOCTYPE|html|head|meta|title|style|body|main|h1|h2|h3|h4|p|ul|li|a|div|figure|svg|rect|text|path|g|table|caption|thead|tbody|tr|th|td|" +
		"article|img|span|b|section"
	known := regexp.MustCompile(`^</?(` + elements + `)[ >]`)
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(page, -1) {
		if !known.MatchString(tag) {
			t.Errorf("the page has %s", tag)
		}
		if regexp.MustCompile(`\son\w+=`).MatchString(tag) {
			t.Errorf("an element has a handler: %s", tag)
		}
		if strings.HasPrefix(tag, "<img") && !strings.HasPrefix(tag, `<img src="data:image/png;base64,`) {
			t.Errorf("a picture comes from elsewhere: %s", tag)
		}
		if strings.Contains(tag, "javascript:") {
			t.Errorf("a link is a script: %s", tag)
		}
	}
	if got, want := strings.Count(page, "</style>"), 1; got != want {
		t.Errorf("the page has %d style sheets, want %d", got, want)
	}
	if !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error("the page does not show the text")
	}
	for _, outside := range regexp.MustCompile(`(src|href|url\()=?["']?(https?:)?//`).FindAllString(page, -1) {
		t.Errorf("the page asks for %s", outside)
	}
	for _, part := range hostilePage(t).Sections[0].Parts {
		if f, isFigure := part.(*Figure); isFigure {
			words(t, f) // is XML
		}
	}
}

// Large pictures and many classes give a page of bounded size.
func TestPageStaysSmall(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	g := &Grid{Amplified: 16}
	for range 8 {
		clean, perturbed := make([]float32, 300*200*3), make([]float32, 300*200*3)
		for i := range clean {
			clean[i], perturbed[i] = r.Float32(), r.Float32()
		}
		e, err := Picture(300, 200, 3, clean, perturbed, 16)
		if err != nil {
			t.Fatal(err)
		}
		g.Examples = append(g.Examples, e)
	}
	var classes []Class
	for i := range 1000 {
		classes = append(classes, Class{fmt.Sprint("class ", i), Accuracy{Hits: 1, Total: 2}, Accuracy{Hits: 1, Total: 2}})
	}
	bars, err := Classes("Classes", conditions, "pgd-20", classes)
	if err != nil {
		t.Fatal(err)
	}
	long := Curve{Name: "loss"}
	for i := range 100_000 {
		long.Points = append(long.Points, Point{float64(i + 1), r.Float64(), 0, 1})
	}
	curve, err := AgainstEpoch("Loss", "loss", 3, []Curve{long})
	if err != nil {
		t.Fatal(err)
	}
	page := &Page{Title: "Large", Sections: []Section{{Title: "All", Parts: []Part{g, bars, curve}}}}
	if n := len(text(t, page.HTML)); n > 600_000 {
		t.Errorf("the page has %d bytes", n)
	}
}

func TestPicture(t *testing.T) {
	e, err := Picture(1, 2, 1, []float32{0.25, 1}, []float32{0.5, 1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		picture []byte
		want    [2]uint32
	}{"clean": {e.Clean, [2]uint32{64, 255}}, "perturbation": {e.Perturbation, [2]uint32{255, 128}}, "perturbed": {e.Perturbed, [2]uint32{128, 255}}} {
		img, err := png.Decode(bytes.NewReader(c.picture))
		if err != nil {
			t.Fatal(err)
		}
		for x, want := range c.want {
			if r, g, b, _ := img.At(x, 0).RGBA(); r>>8 != want || g != r || b != r {
				t.Errorf("%s is %d %d %d at %d, want %d", name, r>>8, g>>8, b>>8, x, want)
			}
		}
	}
	if _, err := Picture(2, 2, 1, []float32{1}, []float32{1}, 1); err == nil {
		t.Error("a picture of a wrong size is no error")
	}
	page := &Page{Sections: []Section{{Parts: []Part{&Grid{Examples: []Example{e}, Amplified: 2}}}}}
	if got := html.UnescapeString(text(t, page.HTML)); !strings.Contains(got, base64.StdEncoding.EncodeToString(e.Perturbation)) || !strings.Contains(got, "change ×2<") {
		t.Error("the page lacks the perturbation")
	}
}

func TestChances(t *testing.T) {
	got := Chances([]string{"a", "b", "c"}, 2, []float64{0.2, 0.3, 0.5})
	if len(got) != 2 || got[0] != (Chance{"c", 0.5, true}) || got[1] != (Chance{"b", 0.3, false}) {
		t.Errorf("the likeliest are %v", got)
	}
}

// A template error leaves nothing half-written.
func TestPageWritesAllOrNothing(t *testing.T) {
	table := &Table{Columns: []Column{{Name: "a"}}, Rows: [][]string{{"1", "2"}}} // made without Add
	var b strings.Builder
	if err := (&Page{Sections: []Section{{Parts: []Part{table}}}}).HTML(io.Writer(&b)); err == nil || b.Len() > 0 {
		t.Errorf("a table that is wrong gives %v and %d bytes", err, b.Len())
	}
}
