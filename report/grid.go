package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"math"
	"slices"

	"golang.org/x/image/draw"
)

// Grid shows images before and after an attack, and what models say of them.
type Grid struct {
	Examples  []Example `json:"examples"`
	Amplified float64   `json:"amplified"` // how many times stronger the perturbation is drawn than it is
}

// Example is an image, its perturbation and its perturbed self, as PNG, and what models say of the first and the last.
type Example struct {
	Class        string   `json:"class"` // what it is
	Clean        []byte   `json:"clean"`
	Perturbation []byte   `json:"perturbation"`
	Perturbed    []byte   `json:"perturbed"`
	Answers      []Answer `json:"answers"`
}

// Answer is what a model says of an image before and after an attack: its likeliest classes.
type Answer struct {
	Who    string   `json:"who"`
	Before []Chance `json:"before"`
	After  []Chance `json:"after"`
}

// Chance is a class and the probability that a model gives it.
type Chance struct {
	Class       string  `json:"class"`
	Probability float64 `json:"probability"`
	Right       bool    `json:"right"`
}

// Chances are the two likeliest classes of an image of a class, from a model's probabilities.
func Chances(classes []string, class int, probabilities []float64) []Chance {
	order := make([]int, len(probabilities))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case probabilities[a] > probabilities[b]:
			return -1
		case probabilities[a] < probabilities[b]:
			return 1
		}
		return 0
	})
	var top []Chance
	for _, i := range order[:min(2, len(order))] {
		top = append(top, Chance{classes[i], probabilities[i], i == class})
	}
	return top
}

// Picture draws an example from pixels in [0,1], height by width by channels (1 or 3), before and after an attack. The
// perturbation is drawn amplified, around the grey that stands for none.
func Picture(height, width, channels int, clean, perturbed []float32, amplified float64) (e Example, err error) {
	difference := make([]float32, len(clean))
	for i, v := range clean {
		difference[i] = float32(0.5 + amplified*(float64(perturbed[i])-float64(v)))
	}
	for _, p := range []struct {
		to     *[]byte
		pixels []float32
	}{{&e.Clean, clean}, {&e.Perturbation, difference}, {&e.Perturbed, perturbed}} {
		if *p.to, err = encode(height, width, channels, p.pixels); err != nil {
			return e, err
		}
	}
	return e, nil
}

// largest is the most pixels that a picture has in either direction; larger ones are made smaller.
const largest = 64

// encode makes a PNG of pixels.
func encode(height, width, channels int, pixels []float32) ([]byte, error) {
	if (channels != 1 && channels != 3) || len(pixels) != height*width*channels {
		return nil, fmt.Errorf("%d values are no image of %dx%dx%d", len(pixels), height, width, channels)
	}
	var img image.Image
	rgb := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range height * width {
		at := func(c int) uint8 {
			v := float64(pixels[i*channels+min(c, channels-1)])
			return uint8(math.Round(255 * min(1, max(0, v))))
		}
		rgb.SetNRGBA(i%width, i/width, color.NRGBA{at(0), at(1), at(2), 255})
	}
	img = rgb
	if size := max(height, width); size > largest {
		small := image.NewNRGBA(image.Rect(0, 0, max(1, width*largest/size), max(1, height*largest/size)))
		draw.ApproxBiLinear.Scale(small, small.Bounds(), rgb, rgb.Bounds(), draw.Src, nil)
		img = small
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// dataURI is a picture as a page holds it.
func dataURI(png []byte) template.URL {
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(png))
}
