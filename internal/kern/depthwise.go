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

// Depthwise3x3 computes rows of a depthwise convolution of 3x3 elements, stride 1 or 2 and padding 1, of one image of
// height×width pixels of cols channels. The output has n = ⌈width/stride⌉ columns; for rows r from first on and all columns j,
//
//	y[(r·n + j)·cols + c] = max(floor, bias[c] + Σ_{i,k<3} x[((r·stride+i-1)·width + j·stride+k-1)·cols + c] · w[(3i+k)·cols + c])
//
// where x is 0 outside the image. NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) Depthwise3x3(y, x, w, bias []float32, floor float32, stride, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	n, below := need3x3(x, y, w, stride, height, width, cols, first, rows)
	need("bias", bias, 1, 0, cols)
	if s.asm != nil {
		f := s.asm.depthwise3x3
		if stride == 2 {
			f = s.asm.depthwise3x3Stride2
		}
		f(&y[first*n*cols], &x[stride*first*width*cols], &w[0], &bias[0], floor, first, rows, below, width, cols)
		return
	}
	clear(y[first*n*cols:][:rows*n*cols])
	each3x3(stride, height, width, first, rows, func(image, out, tap int) {
		addProducts(y[out*cols:][:cols], x[image*cols:], w[tap*cols:])
	})
	for p := first * n; p < (first+rows)*n; p++ {
		for c, b := range bias[:cols] {
			if v := &y[p*cols+c]; *v+b < floor {
				*v = floor
			} else {
				*v += b
			}
		}
	}
}

// Depthwise3x3Mask is Depthwise3x3 of stride 1 without bias and floor whose result is 0 where the mask, a row for each
// pixel, has no bit.
func (s *Set) Depthwise3x3Mask(y, x, w []float32, mask []uint16, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	_, below := need3x3(x, y, w, 1, height, width, cols, first, rows)
	words := MaskWords(cols)
	needMask(mask, height*width, words, cols)
	if s.asm != nil {
		at := first * width
		s.asm.depthwise3x3Mask(&y[at*cols], &x[at*cols], &w[0], &mask[at*words], 2*words, first, rows, below, width, cols)
		return
	}
	y = y[first*width*cols:][:rows*width*cols]
	clear(y)
	each3x3(1, height, width, first, rows, func(image, out, tap int) {
		addProducts(y[(out-first*width)*cols:][:cols], x[image*cols:], w[tap*cols:])
	})
	keepMasked(y, mask[first*width*words:], cols)
}

// Depthwise3x3Input computes the gradient by x of Depthwise3x3 with stride 2, without bias and floor, from rows of dy: those
// of x from 2·first on, two for each of dy but for the last of an odd number. With n = ⌈width/2⌉,
//
//	dx[(y·width + x)·cols + c] = Σ dy[(r·n + j)·cols + c] · w[(3i+k)·cols + c] over 2r+i-1 = y and 2j+k-1 = x
//
// and 0 where there is a mask, a row for each pixel, that has no bit.
func (s *Set) Depthwise3x3Input(dx, dy, w []float32, mask []uint16, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	n, _ := need3x3(dx, dy, w, 2, height, width, cols, first, rows)
	words := MaskWords(cols)
	if mask != nil {
		needMask(mask, height*width, words, cols)
	}
	top, end := 2*first, min(2*(first+rows), height)
	if s.asm != nil {
		dx, dy := &dx[top*width*cols], &dy[first*n*cols]
		if mask != nil {
			s.asm.depthwise3x3InputMask(dx, &w[0], dy, &mask[top*width*words], 2*words, end-top, height-end, width, cols)
			return
		}
		s.asm.depthwise3x3Input(dx, &w[0], dy, end-top, height-end, width, cols)
		return
	}
	clear(dx[top*width*cols : end*width*cols])
	each3x3(2, height, width, first, min(rows+1, (height+1)/2-first), func(image, out, tap int) {
		if y := image / width; y >= top && y < end {
			addProducts(dx[image*cols:][:cols], dy[out*cols:], w[tap*cols:])
		}
	})
	if mask != nil {
		keepMasked(dx[top*width*cols:end*width*cols], mask[top*width*words:], cols)
	}
}

// gradPart is about how many products Depthwise3x3Grad adds up before it adds their sum to others, whose errors grow with
// their number.
const gradPart = 64

// Depthwise3x3Grad adds to the weights' gradient what rows of dy contribute, the gradient by the output of Depthwise3x3:
//
//	dw[(3i+k)·cols + c] += Σ_{r,j} x[((r·stride+i-1)·width + j·stride+k-1)·cols + c] · dy[(r·n + j)·cols + c]
func (s *Set) Depthwise3x3Grad(dw, x, dy []float32, stride, height, width, cols, first, rows int) {
	if rows == 0 || width == 0 || cols == 0 {
		return
	}
	n, below := need3x3(x, dy, dw, stride, height, width, cols, first, rows)
	if s.asm != nil {
		f := s.asm.depthwise3x3Grad
		if stride == 2 {
			f = s.asm.depthwise3x3Stride2Grad
		}
		f(&dw[0], &x[stride*first*width*cols], &dy[first*n*cols], first, rows, below, max(1, gradPart/n), width, cols)
		return
	}
	each3x3(stride, height, width, first, rows, func(image, out, tap int) {
		addProducts(dw[tap*cols:][:cols], x[image*cols:], dy[out*cols:])
	})
}

// need3x3 checks the operands of a convolution and returns how many columns its output has, and how many rows of the image
// are below that of the last row's center.
func need3x3(image, out, w []float32, stride, height, width, cols, first, rows int) (n, below int) {
	if stride != 1 && stride != 2 {
		panic(fmt.Sprintf("kern: stride %d of 3x3 elements, expected 1 or 2", stride))
	}
	outH, n := (height+stride-1)/stride, (width+stride-1)/stride
	if first < 0 || rows < 0 || first+rows > outH {
		panic(fmt.Sprintf("kern: rows %d to %d of an output of %d", first, first+rows, outH))
	}
	need("image", image, height*width, cols, cols)
	need("output", out, outH*n, cols, cols)
	need("w", w, 9, cols, cols)
	return n, height - 1 - stride*(first+rows-1)
}

// each3x3 calls f for every product of rows of the output: with the places of a pixel of the image and of the output, and the
// element between them.
func each3x3(stride, height, width, first, rows int, f func(image, out, tap int)) {
	n := (width + stride - 1) / stride
	for r := first; r < first+rows; r++ {
		for j := range n {
			for i := range 3 {
				for k := range 3 {
					y, x := r*stride+i-1, j*stride+k-1
					if y >= 0 && y < height && x >= 0 && x < width {
						f(y*width+x, r*n+j, 3*i+k)
					}
				}
			}
		}
	}
}

// addProducts is y += a·b.
func addProducts(y, a, b []float32) {
	for c := range y {
		y[c] += a[c] * b[c]
	}
}

// keepMasked clears what has no bit in rows of cols elements.
func keepMasked(y []float32, mask []uint16, cols int) {
	words := MaskWords(cols)
	for i := range y {
		if !bit(mask[i/cols*words:], i%cols) {
			y[i] = 0
		}
	}
}
