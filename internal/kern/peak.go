package kern

import "runtime"

// Peak does multiply-adds of numbers in registers, n > 0 times as many as keep the processor busy, and returns how many
// floating point operations that were: two for each. How fast it does them is what no kernel of the set can exceed.
func (s *Set) Peak(n int) float64 {
	if s.asm != nil {
		s.asm.peak(n)
		return 2 * 12 * float64(s.lanes) * float64(n)
	}
	return peakGeneric(n)
}

func peakGeneric(n int) float64 {
	var a, b, c, d, e, f, g, h float32
	x, y := float32(n), float32(0)
	for range n {
		a += x * y
		b += x * y
		c += x * y
		d += x * y
		e += x * y
		f += x * y
		g += x * y
		h += x * y
		y += x
	}
	runtime.KeepAlive(a + b + c + d + e + f + g + h) // or the loop has no result and is left out
	return 2 * 8 * float64(n)
}
