package kern

import (
	"math"
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
		for _, cols := range []int{1, 7, 8, 9, 16, 17, 24, 33} {
			for height := 1; height <= 6; height++ {
				for width := 1; width <= 8; width++ {
					for rows := range height - width%height + 1 {
						operand := func(n int) guarded { return newGuarded(n, rnd.next) }
						checkDepthwise3x3(t, s, height, width, cols, width%height, rows, width%2 == 0, operand)
					}
				}
			}
		}
	})
}

// checkDepthwise3x3 compares some rows of Depthwise3x3 and Depthwise3x3Mask with their definition.
func checkDepthwise3x3(t *testing.T, s *Set, height, width, cols, first, rows int, floored bool, operand func(n int) guarded) {
	t.Helper()
	size := height * width * cols
	x, w, bias := operand(size), operand(9*cols), operand(cols)
	draw := operand(height * width * MaskWords(cols)).v
	mask := newMask(len(draw), func() float32 { v := draw[0]; draw = draw[1:]; return v })
	y, gated := operand(size), operand(size)
	oldY, oldGated := append([]float32(nil), y.v...), append([]float32(nil), gated.v...)
	floor := float32(math.Inf(-1))
	if floored {
		floor = 0
	}
	s.Depthwise3x3(y.v, x.v, w.v, bias.v, floor, height, width, cols, first, rows)
	s.Depthwise3x3Mask(gated.v, x.v, w.v, mask, height, width, cols, first, rows)
	for _, g := range []guarded{x, w, y, bias, gated} {
		g.check(t, "Depthwise3x3")
	}
	for at := range size {
		r, j, c := at/cols/width, at/cols%width, at%cols
		if r < first || r >= first+rows {
			if y.v[at] != oldY[at] || gated.v[at] != oldGated[at] {
				t.Fatalf("row %d was written, which is none of the %d from %d on", r, rows, first)
			}
			continue
		}
		sum, mag := 0.0, math.Abs(float64(bias.v[c]))
		for i := range 3 {
			for k := range 3 {
				if r+i < 1 || r+i > height || j+k < 1 || j+k > width {
					continue
				}
				v := float64(x.v[((r+i-1)*width+j+k-1)*cols+c]) * float64(w.v[(3*i+k)*cols+c])
				sum += v
				mag += math.Abs(v)
			}
		}
		want := max(float64(bias.v[c])+sum, float64(floor))
		if got := float64(y.v[at]); !(math.Abs(got-want) <= 1e-6*mag) {
			t.Fatalf("%dx%d, %d channels, %d rows from %d: y[%d,%d,%d] = %v, want %v", height, width, cols, rows, first, r, j, c, got, want)
		}
		if !bit(mask[at/cols*MaskWords(cols):], c) {
			sum = 0
		}
		if got := float64(gated.v[at]); !(math.Abs(got-sum) <= 1e-6*mag) {
			t.Fatalf("%dx%d, %d channels, %d rows from %d: masked y[%d,%d,%d] = %v, want %v", height, width, cols, rows, first, r, j, c, got, sum)
		}
	}
}
