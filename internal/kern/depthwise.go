package kern

import "fmt"

// Tap is one element of a depthwise kernel: how far its input is from a pixel's, and its weights from the first.
type Tap struct{ X, W int }

// Taps are the elements of a depthwise kernel.
type Taps struct {
	list []Tap
	x, w int // the farthest
}

// NewTaps makes Taps of elements, none of which lies before the first input or weight.
func NewTaps(list []Tap) Taps {
	taps := Taps{list: list}
	for _, t := range list {
		if t.X < 0 || t.W < 0 {
			panic(fmt.Sprintf("kern: tap %+v lies before its input or weights", t))
		}
		taps.x, taps.w = max(taps.x, t.X), max(taps.w, t.W)
	}
	return taps
}

func (taps Taps) check(x []float32, xStep int, w []float32, count, cols int) {
	if len(taps.list) > 0 && (xStep < 0 || taps.x+(count-1)*xStep+cols > len(x) || taps.w+cols > len(w)) {
		panic(fmt.Sprintf("kern: taps %+v of %d pixels every %d with %d channels are outside %d inputs or %d weights", taps.list, count, xStep, cols, len(x), len(w)))
	}
}

// Depthwise computes one run of count pixels of cols channels, with any number of taps:
//
//	y[p·yStep + c] = max(floor, bias[c] + Σ_t x[p·xStep + taps.list[t].X + c] · w[taps.list[t].W + c])
//
// NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) Depthwise(y []float32, yStep int, x []float32, xStep int, w []float32, taps Taps, bias []float32, floor float32, count, cols int) {
	if count == 0 || cols == 0 {
		return
	}
	need("y", y, count, yStep, cols)
	need("bias", bias, 1, 0, cols)
	taps.check(x, xStep, w, count, cols)
	if s.asm != nil && len(taps.list) > 0 {
		s.asm.depthwise(&y[0], yStep, &x[0], xStep, &w[0], &taps.list[0].X, len(taps.list), &bias[0], floor, count, cols)
		return
	}
	for p := range count {
		y := y[p*yStep:][:cols]
		copy(y, bias)
		for _, t := range taps.list {
			x, w := x[p*xStep+t.X:][:cols], w[t.W:][:cols]
			for c := range y {
				y[c] += x[c] * w[c]
			}
		}
		for c, v := range y {
			if v < floor {
				y[c] = floor
			}
		}
	}
}

// DepthwiseGrad adds to the weights' gradient what one run of pixels contributes:
//
//	dw[taps.list[t].W + c] += Σ_p x[p·xStep + taps.list[t].X + c] · dy[p·dyStep + c]
func (s *Set) DepthwiseGrad(dw, x []float32, xStep int, dy []float32, dyStep int, taps Taps, count, cols int) {
	if count == 0 || cols == 0 {
		return
	}
	need("dy", dy, count, dyStep, cols)
	taps.check(x, xStep, dw, count, cols)
	if s.asm != nil {
		list := taps.list
		for ; len(list) >= 3; list = list[3:] {
			s.asm.depthwiseGrad3(&dw[0], &x[0], xStep, &dy[0], dyStep, &list[0].X, count, cols)
		}
		for i := range list {
			s.asm.depthwiseGrad1(&dw[0], &x[0], xStep, &dy[0], dyStep, &list[i].X, count, cols)
		}
		return
	}
	for _, t := range taps.list {
		dw := dw[t.W:][:cols]
		for p := range count {
			x, dy := x[p*xStep+t.X:][:cols], dy[p*dyStep:][:cols]
			for c := range dw {
				dw[c] += x[c] * dy[c]
			}
		}
	}
}

// Depthwise3x3 computes rows of a depthwise convolution of 3x3 elements, stride 1 and padding 1, of one image of
// height×width pixels of cols channels: for rows r from first on and all columns j,
//
//	y[(r·width + j)·cols + c] = max(floor, bias[c] + Σ_{i,k<3} x[((r+i-1)·width + j+k-1)·cols + c] · w[(3i+k)·cols + c])
//
// where x is 0 outside the image. NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) Depthwise3x3(y, x, w, bias []float32, floor float32, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	need3x3(y, x, w, height, width, cols, first, rows)
	need("bias", bias, 1, 0, cols)
	if s.asm != nil {
		at := first * width * cols
		s.asm.depthwise3x3(&y[at], &x[at], &w[0], &bias[0], floor, first, rows, height-first-rows, width, cols)
		return
	}
	each3x3(y, x, w, height, width, cols, first, rows, func(at, c int, sum float32) float32 {
		if sum += bias[c]; sum < floor {
			return floor
		}
		return sum
	})
}

// Depthwise3x3Mask is Depthwise3x3 without bias and floor whose result is 0 where the mask, a row for each pixel, has no bit.
func (s *Set) Depthwise3x3Mask(y, x, w []float32, mask []uint16, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	need3x3(y, x, w, height, width, cols, first, rows)
	words := MaskWords(cols)
	needMask(mask, height*width, words, cols)
	if s.asm != nil {
		at := first * width * cols
		s.asm.depthwise3x3Mask(&y[at], &x[at], &w[0], &mask[first*width*words], 2*words, first, rows, height-first-rows, width, cols)
		return
	}
	each3x3(y, x, w, height, width, cols, first, rows, func(at, c int, sum float32) float32 {
		if bit(mask[at/cols*words:], c) {
			return sum
		}
		return 0
	})
}

func need3x3(y, x, w []float32, height, width, cols, first, rows int) {
	if first < 0 || rows < 0 || first+rows > height {
		panic(fmt.Sprintf("kern: rows %d to %d of an image of %d", first, first+rows, height))
	}
	need("y", y, height*width, cols, cols)
	need("x", x, height*width, cols, cols)
	need("w", w, 9, cols, cols)
}

// each3x3 sets every output to what finish makes of its place, its channel and its sum.
func each3x3(y, x, w []float32, height, width, cols, first, rows int, finish func(at, c int, sum float32) float32) {
	for r := first; r < first+rows; r++ {
		for j := range width {
			for c := range cols {
				sum := float32(0)
				for i := max(0, 1-r); i < min(3, height+1-r); i++ {
					for k := max(0, 1-j); k < min(3, width+1-j); k++ {
						sum += x[((r+i-1)*width+j+k-1)*cols+c] * w[(3*i+k)*cols+c]
					}
				}
				at := (r*width+j)*cols + c
				y[at] = finish(at, c, sum)
			}
		}
	}
}
