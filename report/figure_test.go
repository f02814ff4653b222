package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// words are those of a figure, which has to be well-formed XML.
func words(t *testing.T, f *Figure) string {
	t.Helper()
	var words strings.Builder
	style := false
	for dec := xml.NewDecoder(strings.NewReader(text(t, f.SVG))); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return words.String()
		}
		if err != nil {
			t.Fatal("the figure is no XML: ", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			style = token.Name.Local == "style"
			for _, a := range token.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("an element has %s=%q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			if !style {
				words.Write(token)
			}
		}
	}
}

func TestScatter(t *testing.T) {
	models := append(example(), Model{Name: "wrn & <co>", Accuracies: []Accuracy{
		{Attack: "clean", Hits: 860, Total: 1000, Low: 0.837, High: 0.88}, {Attack: "pgd-20", Hits: 600, Total: 1000, Low: 0.569, High: 0.63}}})
	f, err := Scatter("Trade-off", conditions, "pgd-20", models)
	if err != nil {
		t.Fatal(err)
	}
	says := words(t, f)
	for word, want := range map[string]bool{"Trade-off": true, "resnet18": true, "wrn & <co>": true, "pgd-20 eps 8/255": true,
		"resnet8-w8": false} {
		if strings.Contains(says, word) != want {
			t.Errorf("that the figure says %q should be %t: %s", word, want, says)
		}
	}
	if _, err := Scatter("", conditions, "cw", models); err == nil || !strings.Contains(err.Error(), "under cw") {
		t.Errorf("a figure without points: %v", err)
	}
}

func TestCurves(t *testing.T) {
	curves := []Curve{
		{"adaad <b>", []Point{{8, 50, 45, 55}, {16, 40, 36, 44}, {32, 25, 22, 28}}},
		{"rslad", []Point{{8, 49, 44, 54}, {16, math.NaN(), 0, 0}, {32, 24.5, 20, 30}}},
		{"nothing", []Point{{8, math.NaN(), math.NaN(), math.NaN()}}},
	}
	f, err := AgainstRadius("Radii", "accuracy under pgd-20 eps 8/255", curves)
	if err != nil {
		t.Fatal(err)
	}
	says := words(t, f)
	for word, want := range map[string]bool{"adaad <b>": true, "rslad": true, "nothing": false, "training eps, in 255ths": true,
		"accuracy under pgd-20 eps 8/255, %": true} {
		if strings.Contains(says, word) != want {
			t.Errorf("that the figure says %q should be %t: %s", word, want, says)
		}
	}
	if _, err := AgainstRadius("Radii", "", curves[2:]); err == nil {
		t.Error("a figure of nothing is no error")
	}
	for _, epochs := range []int{1, 2, 30, 200} {
		c := Curve{Name: "training"}
		for e := range epochs {
			c.Points = append(c.Points, Point{float64(e + 1), 2, 2, 2})
		}
		f, err := AgainstEpoch("Loss", "loss", epochs, []Curve{c})
		if err != nil {
			t.Fatal(err)
		}
		if says := words(t, f); !strings.Contains(says, "chosen") || !strings.Contains(says, "epoch") {
			t.Errorf("%d epochs: %s", epochs, says)
		}
	}
}

func TestBars(t *testing.T) {
	var classes []Class
	for i := range 30 {
		classes = append(classes, Class{fmt.Sprint("class", i), Accuracy{Hits: 9, Total: 10}, Accuracy{Hits: (i + 3) % 8, Total: 10}})
	}
	f, err := Classes("Classes", conditions, "pgd-20", classes)
	if err != nil {
		t.Fatal(err)
	}
	says := words(t, f)
	if !strings.Contains(says, "the worst 20 of 30") || !strings.Contains(says, "class5") || strings.Contains(says, "class4:") {
		t.Errorf("the figure says %s", says)
	}
	models := []Model{{Name: "m<1>", Accuracies: []Accuracy{{Attack: "pgd-20", Hits: 1, Total: 2, WorstClass: "cat", WorstAccuracy: 0.25}}}}
	if f, err = WorstClasses("Worst", conditions, "pgd-20", models); err != nil {
		t.Fatal(err)
	}
	if says := words(t, f); !strings.Contains(says, "25.00 cat") || !strings.Contains(says, "m<1>") {
		t.Errorf("the figure says %s", says)
	}
	if _, err := WorstClasses("Worst", conditions, "cw", models); err == nil {
		t.Error("a figure of nothing is no error")
	}
}

// Names in a figure may stand anywhere but on each other, on marks or outside.
func TestLabelsDoNotOverlap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	frame := box{60, 40, 540, 400}
	for range 20 {
		var labels []label
		for i := range 16 { // in a cloud, as models are
			labels = append(labels, label{text: fmt.Sprint("method-", i, " resnet8"), x: 300 + 60*r.NormFloat64(), y: 220 + 50*r.NormFloat64()})
		}
		placeLabels(labels, nil, frame)
		for i, l := range labels {
			if inside := l.overlap(frame); math.Abs(inside-(l.x1-l.x0)*(l.y1-l.y0)) > 1e-6 {
				t.Errorf("%q stands outside: %v", l.text, l.box)
			}
			for j, other := range labels {
				mark := box{other.x - 4, other.y - 4, other.x + 4, other.y + 4}
				if j < i && l.overlap(other.box) > 0 || l.overlap(mark) > 0 {
					t.Errorf("%q stands on %q", l.text, other.text)
				}
			}
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct{ wish, want []float64 }{
		{[]float64{50}, []float64{50}},
		{[]float64{50, 50}, []float64{45, 55}},
		{[]float64{70, 50, 51}, []float64{70, 45.5, 55.5}},
		{[]float64{0, 1, 2}, []float64{0, 10, 20}},
		{[]float64{100, 99}, []float64{100, 90}},
	} {
		if got := spread(c.wish, 10, 0, 100); !slices.Equal(got, c.want) {
			t.Errorf("spread(%v) is %v, want %v", c.wish, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		wish := make([]float64, 1+r.IntN(10))
		for i := range wish {
			wish[i] = 100 * r.Float64()
		}
		got := spread(wish, 10, 0, 100)
		for i := range got {
			if got[i] < -1e-9 || got[i] > 100+1e-9 {
				t.Fatalf("spread(%v) is %v, outside", wish, got)
			}
			for j := range i {
				if math.Abs(got[i]-got[j]) < 10-1e-9 || (got[i] < got[j]) != (wish[i] < wish[j]) {
					t.Fatalf("spread(%v) is %v", wish, got)
				}
			}
		}
	}
}

// Colours stand out from the ground (WCAG asks for a contrast of 3) and from each other, as OKLab sees them, with normal
// vision and with protanopia, deuteranopia and tritanopia (Machado et al. 2009, at full severity).
func TestColoursCanBeToldApart(t *testing.T) {
	visions := map[string][3][3]float64{
		"normal":       {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
		"protanopia":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
		"deuteranopia": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
		"tritanopia":   {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
	}
	for ground, inks := range map[string][]string{lightGround: lightInks, darkGround: darkInks} {
		for i, ink := range inks {
			a, b := luminance(linear(t, ink)), luminance(linear(t, ground))
			if contrast := (max(a, b) + 0.05) / (min(a, b) + 0.05); contrast < 2.99 {
				t.Errorf("%s on %s has a contrast of %.2f", ink, ground, contrast)
			}
			for _, other := range inks[:i] {
				for name, m := range visions {
					p, q := oklab(times(m, linear(t, ink))), oklab(times(m, linear(t, other)))
					if d := math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2]); d < 0.1 {
						t.Errorf("%s and %s are %.3f apart with %s vision", ink, other, d, name)
					}
				}
			}
		}
	}
}

func linear(t *testing.T, colour string) (rgb [3]float64) {
	for i := range rgb {
		v, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(v) / 255
		if rgb[i] = c / 12.92; c > 0.04045 {
			rgb[i] = math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return rgb
}

func luminance(rgb [3]float64) float64 { return 0.2126*rgb[0] + 0.7152*rgb[1] + 0.0722*rgb[2] }

func times(m [3][3]float64, v [3]float64) (w [3]float64) {
	for i := range w {
		w[i] = min(1, max(0, m[i][0]*v[0]+m[i][1]*v[1]+m[i][2]*v[2]))
	}
	return w
}

// oklab is Ottosson's perceptual colour space (2020).
func oklab(rgb [3]float64) [3]float64 {
	cone := [3][3]float64{{0.4122214708, 0.5363325363, 0.0514459929}, {0.2119034982, 0.6806995451, 0.1073969566}, {0.0883024619, 0.2817188376, 0.6299787005}}
	lab := [3][3]float64{{0.2104542553, 0.7936177850, -0.0040720468}, {1.9779984951, -2.4285922050, 0.4505937099}, {0.0259040371, 0.7827717662, -0.8086757660}}
	lms := times(cone, rgb)
	var out [3]float64
	for i := range out {
		for j, v := range lms {
			out[i] += lab[i][j] * math.Cbrt(v)
		}
	}
	return out
}
