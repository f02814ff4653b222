package threat

import "math"

// What follows is the geometry of the ball for one image at a time, outside of any graph: an image is its pixels in any
// fixed order. Sums are taken in float64 and in that order, so that they do not depend on anything else.

// Distance is the norm of a - b.
func (n Norm) Distance(a, b []float32) float64 {
	if n == L2 {
		var sum float64
		for i, v := range a {
			d := float64(v) - float64(b[i])
			sum += d * d
		}
		return math.Sqrt(sum)
	}
	var far uint64 // bits: magnitudes are in the order of theirs
	for i, v := range a {
		far = max(far, math.Float64bits(math.Abs(float64(v)-float64(b[i]))))
	}
	return math.Float64frombits(far)
}

// Length is the norm of d.
func (n Norm) Length(d []float32) float64 {
	if n == L2 {
		var sum float64
		for _, v := range d {
			sum += float64(v) * float64(v)
		}
		return math.Sqrt(sum)
	}
	const sign = 1 << 31
	var far uint32 // bits, as in Distance
	for _, v := range d {
		far = max(far, math.Float32bits(v)&^sign)
	}
	return float64(math.Float32frombits(far))
}

// ProjectPoint moves adv to the nearest point of the ball of radius eps around x, then clips it to [0,1].
func (n Norm) ProjectPoint(x, adv []float32, eps float64) {
	x = x[:len(adv)]
	if n == L2 {
		scale := float32(min(1, eps/(n.Distance(adv, x)+1e-12)))
		for i, v := range adv {
			adv[i] = max(0, min(x[i]+(v-x[i])*scale, 1))
		}
		return
	}
	e := float32(eps)
	for i, v := range adv {
		adv[i] = max(0, x[i]-e, min(v, x[i]+e, 1))
	}
}

// AscendPoint adds to adv the step of a length that raises an objective with gradient grad fastest: length·sign(grad) for
// Linf, length·grad/|grad| for L2.
func (n Norm) AscendPoint(adv, grad []float32, length float64) {
	if n == L2 {
		scale := float32(length / (n.Length(grad) + 1e-12))
		for i, g := range grad {
			adv[i] += scale * g
		}
		return
	}
	step := float32(length)
	for i, g := range grad {
		switch {
		case g > 0:
			adv[i] += step
		case g < 0:
			adv[i] -= step
		}
	}
}
