package kern

import "fmt"

// Tap is one element of a depthwise kernel: how far its input is from a pixel's, and its weights from the first.
type Tap struct{ X, W int }

func checkTaps(x []float32, xStep int, w []float32, taps []Tap, count, cols int) {
	for _, t := range taps {
		if t.X < 0 || t.W < 0 || xStep < 0 || t.X+(count-1)*xStep+cols > len(x) || t.W+cols > len(w) {
			panic(fmt.Sprintf("kern: tap %+v of %d pixels every %d with %d channels is outside %d inputs or %d weights", t, count, xStep, cols, len(x), len(w)))
		}
	}
}

// Depthwise computes one run of count pixels of cols channels, with any number of taps:
//
//	y[p·yStep + c] = max(floor, bias[c] + Σ_t x[p·xStep + taps[t].X + c] · w[taps[t].W + c])
//
// NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) Depthwise(y []float32, yStep int, x []float32, xStep int, w []float32, taps []Tap, bias []float32, floor float32, count, cols int) {
	if count == 0 || cols == 0 {
		return
	}
	need("y", y, count, yStep, cols)
	need("bias", bias, 1, 0, cols)
	checkTaps(x, xStep, w, taps, count, cols)
	if s.asm != nil && len(taps) > 0 {
		s.asm.depthwise(&y[0], yStep, &x[0], xStep, &w[0], &taps[0].X, len(taps), &bias[0], floor, count, cols)
		return
	}
	for p := range count {
		y := y[p*yStep:][:cols]
		copy(y, bias)
		for _, t := range taps {
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
//	dw[taps[t].W + c] += Σ_p x[p·xStep + taps[t].X + c] · dy[p·dyStep + c]
func (s *Set) DepthwiseGrad(dw, x []float32, xStep int, dy []float32, dyStep int, taps []Tap, count, cols int) {
	if count == 0 || cols == 0 {
		return
	}
	need("dy", dy, count, dyStep, cols)
	checkTaps(x, xStep, dw, taps, count, cols)
	if s.asm != nil {
		for ; len(taps) >= 3; taps = taps[3:] {
			s.asm.depthwiseGrad3(&dw[0], &x[0], xStep, &dy[0], dyStep, &taps[0].X, count, cols)
		}
		for i := range taps {
			s.asm.depthwiseGrad1(&dw[0], &x[0], xStep, &dy[0], dyStep, &taps[i].X, count, cols)
		}
		return
	}
	for _, t := range taps {
		dw := dw[t.W:][:cols]
		for p := range count {
			x, dy := x[p*xStep+t.X:][:cols], dy[p*dyStep:][:cols]
			for c := range dw {
				dw[c] += x[c] * dy[c]
			}
		}
	}
}
