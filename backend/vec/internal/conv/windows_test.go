package conv

import (
	"slices"
	"testing"

	"github.com/adaad-go/adaad/internal/kern"
)

// inside reports whether a pixel is in the window.
func (w Window) inside(n, y, x int) bool {
	return n == w.N && y >= w.Top && y < w.Bottom && x >= w.Left && x < w.Right
}

// TestForwardWindows changes a window of one image. It expects what covers the outputs that this reaches to be made with the
// bits of a whole convolution, from nothing but what Read says, every other output to be left alone, and those to be right.
func TestForwardWindows(t *testing.T) {
	everySet(t, func(t *testing.T, set *kern.Set) {
		rnd := noise(11)
		draw := func(n int) int { return int(uint32(int32(rnd.next()*(1<<30))+1<<30)) % n }
		covered := 0
		list := slices.Concat(shapes, []Shape{square(3, 20, 16, 32, 3, 1), square(2, 24, 16, 32, 3, 2), square(2, 21, 32, 16, 3, 1),
			square(3, 16, 16, 32, 1, 2), square(2, 20, 3, 16, 3, 1), square(2, 18, 16, 16, 5, 1), square(2, 16, 32, 32, 3, 1).with(func(s *Shape) { s.DilH, s.DilW = 2, 2 })})
		for _, s := range slices.Clone(list) {
			list = append(list, precisions(s, set)[1:]...)
		}
		for n, s := range list {
			plan := NewPlan(s, set, 1)
			oh, ow := s.Out()
			if _, ok := plan.Cover(Window{Bottom: 1, Right: 1}); !ok || s.H*s.W == 0 || oh*ow == 0 {
				continue
			}
			covered++
			t.Run(s.String(), func(t *testing.T) {
				k := layouts(s)[n%3]
				size := 0
				for _, l := range []int{k.SO * (s.Cout - 1), k.SI * (s.Cin/s.Groups - 1), k.SH * (s.KH - 1), k.SW * (s.KW - 1)} {
					size += max(l, -l)
				}
				k.Data = newGuarded(size+1, rnd.next).v
				weights := make([]float32, plan.PackedSize())
				plan.Pack(goroutines(1), weights, k)
				x := newGuarded(s.N*s.H*s.W*s.Cin, rnd.next).v
				before, after := make([]float32, s.N*oh*ow*s.Cout), make([]float32, s.N*oh*ow*s.Cout)
				e := Epilogue{Bias: newGuarded(s.Cout, rnd.next).v, Residual: newGuarded(len(before), rnd.next).v, ReLU: n%2 == 0}
				plan.Forward(goroutines(1), before, x, weights, e)
				for range 4 {
					w := Window{N: draw(s.N), Top: draw(s.H), Left: draw(s.W)}
					w.Bottom, w.Right = w.Top+1+draw(s.H-w.Top), w.Left+1+draw(s.W-w.Left)
					changed := slices.Clone(x)
					for y := w.Top; y < w.Bottom; y++ {
						for i := ((w.N*s.H+y)*s.W + w.Left) * s.Cin; i < ((w.N*s.H+y)*s.W+w.Right)*s.Cin; i++ {
							changed[i] = rnd.next()
						}
					}
					plan.Forward(goroutines(1), after, changed, weights, e)
					cover, _ := plan.Cover(plan.Reached(w))
					read := plan.Read(cover)
					for i := range changed {
						if p := i / s.Cin; !read.inside(p/s.W/s.H, p/s.W%s.H, p%s.W) {
							changed[i] = nan()
						}
					}
					got := newGuarded(len(before), rnd.next)
					copy(got.v, before)
					plan.ForwardWindows(got.v, changed, weights, e, []Window{{N: 0}, cover})
					got.check(t, "y")
					identical(t, "y", got.v, after)
				}
			})
		}
		if covered < 10 {
			t.Errorf("%d shapes are computed in windows, expected most", covered)
		}
	})
}
