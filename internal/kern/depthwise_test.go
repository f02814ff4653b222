package kern

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestDepthwise(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(8)
		for _, cols := range []int{1, 3, 7, 8, 9, 15, 16, 17, 24, 32, 33, 65} {
			for count := 1; count <= 10; count++ {
				for tapCount := range 8 {
					xStep, yStep := cols*(1+count%2), cols+count%3
					var taps []Tap
					reach := 0
					for i := range tapCount {
						taps = append(taps, Tap{X: i * 3, W: i * (cols + 1)})
						reach = i * 3
					}
					x := newGuarded((count-1)*xStep+reach+cols, rnd.next)
					w := newGuarded(tapCount*(cols+1)+cols, rnd.next)
					y := newGuarded((count-1)*yStep+cols, rnd.next)
					bias := newGuarded(cols, rnd.next)
					floor := float32(math.Inf(-1))
					if count%2 == 0 {
						floor = 0
					}
					dw := newGuarded(len(w.v), rnd.next)
					oldY, oldW := append([]float32(nil), y.v...), append([]float32(nil), dw.v...)
					s.DepthwiseGrad(dw.v, x.v, xStep, y.v, yStep, NewTaps(taps), count, cols)
					s.Depthwise(y.v, yStep, x.v, xStep, w.v, NewTaps(taps), bias.v, floor, count, cols)
					for _, g := range []guarded{x, w, y, bias, dw} {
						g.check(t, "Depthwise")
					}
					for p := range count {
						for c := range min(yStep, len(y.v)-p*yStep) {
							want, mag := float64(oldY[p*yStep+c]), 0.0
							if c < cols {
								want = float64(bias.v[c])
								mag = math.Abs(want)
								for _, tap := range taps {
									v := float64(x.v[p*xStep+tap.X+c]) * float64(w.v[tap.W+c])
									want += v
									mag += math.Abs(v)
								}
								want = max(want, float64(floor))
							}
							if got := float64(y.v[p*yStep+c]); !(math.Abs(got-want) <= 1e-6*mag) {
								t.Fatalf("%d channels, %d pixels, %d taps: y[%d,%d] = %v, want %v", cols, count, tapCount, p, c, got, want)
							}
						}
					}
					want, mag := make([]float64, len(oldW)), make([]float64, len(oldW))
					for i, v := range oldW {
						want[i], mag[i] = float64(v), math.Abs(float64(v))
					}
					for _, tap := range taps {
						for p := range count {
							for c := range cols {
								v := float64(x.v[p*xStep+tap.X+c]) * float64(oldY[p*yStep+c])
								want[tap.W+c] += v
								mag[tap.W+c] += math.Abs(v)
							}
						}
					}
					for i, v := range dw.v {
						if !(math.Abs(float64(v)-want[i]) <= 1e-6*mag[i]) {
							t.Fatalf("%d channels, %d pixels, %d taps: dw[%d] = %v, want %v", cols, count, tapCount, i, v, want[i])
						}
					}
				}
			}
		}
	})
}

func TestDepthwise3x3(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(9)
		operand := func(n int) guarded { return newGuarded(n, rnd.next) }
		for _, stride := range []int{1, 2} {
			for _, cols := range []int{1, 7, 8, 9, 16, 17, 24, 33} {
				for height := 1; height <= 7; height++ {
					for width := 1; width <= 8; width++ {
						outH := (height + stride - 1) / stride
						first := width % outH
						for rows := range outH - first + 1 {
							checkDepthwise3x3(t, s, stride, height, width, cols, first, rows, width%2 == 0, operand)
						}
					}
				}
				for _, size := range [][2]int{{9, 21}, {6, 40}, {5, 70}} { // sums of several parts
					checkDepthwise3x3(t, s, stride, size[0], size[1], cols, 0, (size[0]+stride-1)/stride, true, operand)
				}
			}
		}
	})
}

// checkDepthwise3x3 compares some rows of Depthwise3x3 and what they contribute to its gradients, and Depthwise3x3Mask, with
// their definitions.
func checkDepthwise3x3(t *testing.T, s *Set, stride, height, width, cols, first, rows int, floored bool, operand func(n int) guarded) {
	t.Helper()
	outH, n := (height+stride-1)/stride, (width+stride-1)/stride
	x, dy, w, bias := operand(height*width*cols), operand(outH*n*cols), operand(9*cols), operand(cols)
	words := MaskWords(cols)
	draw := operand(height * width * words).v
	mask := newMask(len(draw), func() float32 { v := draw[0]; draw = draw[1:]; return v })
	floor := float32(math.Inf(-1))
	if floored {
		floor = 0
	}
	each := func(first, rows int, f func(image, out, tap int)) {
		for r := first; r < first+rows; r++ {
			for j := range n {
				for tap := range 9 {
					y, x := r*stride+tap/3-1, j*stride+tap%3-1
					for c := range cols {
						if y >= 0 && y < height && x >= 0 && x < width {
							f((y*width+x)*cols+c, (r*n+j)*cols+c, tap*cols+c)
						}
					}
				}
			}
		}
	}
	check := func(what string, got guarded, want *sums, from, to int, bound float64, old []float32) {
		t.Helper()
		what = fmt.Sprintf("%s on %s: stride %d, %dx%d, %d channels, %d rows from %d", what, s.Name(), stride, height, width, cols, rows, first)
		for _, g := range []guarded{x, dy, w, bias, got} {
			g.check(t, what)
		}
		same(t, what+": before", got.v[:from], old[:from])
		same(t, what+": after", got.v[to:], old[to:])
		for i := from; i < to; i++ {
			if v := float64(got.v[i]); !(math.Abs(v-want.value[i]) <= bound*want.magnitude[i]) {
				t.Fatalf("%s: [%d] = %v, want %v", what, i, v, want.value[i])
			}
		}
	}
	keep := func(want *sums) *sums {
		for at := range want.value {
			if !bit(mask[at/cols*words:], at%cols) {
				want.value[at] = 0
			}
		}
		return want
	}

	from, to := first*n*cols, (first+rows)*n*cols
	forward, plain := newSums(make([]float32, len(dy.v))), newSums(make([]float32, len(dy.v)))
	dw := operand(len(w.v))
	kernel := newSums(dw.v)
	each(first, rows, func(image, out, tap int) {
		plain.add(out, float64(x.v[image])*float64(w.v[tap]))
		forward.add(out, float64(x.v[image])*float64(w.v[tap]))
		kernel.add(tap, float64(x.v[image])*float64(dy.v[out]))
	})
	for at := range forward.value {
		forward.add(at, float64(bias.v[at%cols]))
		forward.value[at] = max(forward.value[at], float64(floor))
	}
	y := operand(len(dy.v))
	old := slices.Clone(y.v)
	if rows > 0 {
		refuses(t, "Depthwise3x3", func() { s.Depthwise3x3(y.v, x.v[1:], w.v, bias.v, floor, stride, height, width, cols, first, rows) }, y)
		refuses(t, "Depthwise3x3Grad", func() { s.Depthwise3x3Grad(dw.v[1:], x.v, dy.v, stride, height, width, cols, first, rows) }, dw)
	}
	s.Depthwise3x3(y.v, x.v, w.v, bias.v, floor, stride, height, width, cols, first, rows)
	check("Depthwise3x3", y, forward, from, to, 1e-6, old)
	s.Depthwise3x3Grad(dw.v, x.v, dy.v, stride, height, width, cols, first, rows)
	check("Depthwise3x3Grad", dw, kernel, 0, len(dw.v), 2e-6, dw.v)
	if stride == 1 {
		copy(y.v, old)
		s.Depthwise3x3Mask(y.v, x.v, w.v, mask, height, width, cols, first, rows)
		check("Depthwise3x3Mask", y, keep(plain), from, to, 1e-6, old)
		return
	}

	from, to = 2*first*width*cols, min(2*(first+rows), height)*width*cols
	if rows == 0 {
		to = from
	}
	input := newSums(make([]float32, len(x.v)))
	each(0, outH, func(image, out, tap int) { input.add(image, float64(dy.v[out])*float64(w.v[tap])) })
	dx := operand(len(x.v))
	old = slices.Clone(dx.v)
	s.Depthwise3x3Input(dx.v, dy.v, w.v, nil, height, width, cols, first, rows)
	check("Depthwise3x3Input", dx, input, from, to, 1e-6, old)
	copy(dx.v, old)
	s.Depthwise3x3Input(dx.v, dy.v, w.v, mask, height, width, cols, first, rows)
	check("Depthwise3x3Input with a mask", dx, keep(input), from, to, 1e-6, old)
}
