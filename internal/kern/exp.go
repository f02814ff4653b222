package kern

import "math"

// Exp and Log are computed alike by every set, operation by operation without fused ones, so that they give the same bits
// everywhere. The polynomials are minimax ones (by Remez' exchange, then rounded to float32).

const (
	ln2Hi = 0x1.63p-1       // ten bits of log 2, so that products with exponents are exact,
	ln2Lo = -0x1.bd0106p-13 // and the rest
	log2E = float32(math.Log2E)

	// Adding and subtracting whole rounds a small number to the nearest whole one; in between, that stands in the last bits.
	whole     = float32(0x1.8p23)
	wholeBits = 0x4b400000

	rootHalfBits = 0x3f3504f3 // of √½
)

// Exp is dst[i] = exp(a[i]), within one unit in the last place: a[i] above 88.7228 gives +Inf, below -103.972 zero.
func (s *Set) Exp(dst, a []float32) {
	if s.unary(opExp, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = exp(x)
	}
}

// Log is dst[i] = log(a[i]), within one unit in the last place: -Inf for zeros and NaN below them.
func (s *Set) Log(dst, a []float32) {
	if s.unary(opLog, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = log(x)
	}
}

// exp is 2ⁿ·exp(r) with n = round(x/log 2) and r = x - n·log 2, |r| ≤ log(2)/2. The conversions keep the compiler from fusing.
func exp(x float32) float32 {
	if x > 89 {
		x = 89
	}
	if x < -104 {
		x = -104
	}
	z := float32(x*log2E) + whole
	n := z - whole
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(0x1.9f0716p-13)
	p = float32(p*r) + 0x1.6d8eeep-10
	p = float32(p*r) + 0x1.111274p-7
	p = float32(p*r) + 0x1.55548cp-5
	p = float32(p*r) + 0x1.555554p-3
	p = float32(p*r) + 0x1p-1
	y := float32(float32(r*r)*p) + r
	y++
	// In two steps: neither half of n leaves the range of exponents, and only the second product is rounded.
	k := int32(math.Float32bits(z) - wholeBits)
	half := k >> 1
	y *= math.Float32frombits(uint32(half+127) << 23)
	return y * math.Float32frombits(uint32(k-half+127)<<23)
}

// log is k·log 2 + log(1+f) with x = 2ᵏ·(1+f) and √½ ≤ 1+f < √2.
func log(x float32) float32 {
	switch {
	case x == 0:
		return float32(math.Inf(-1))
	case !(x >= 0):
		return float32(math.NaN())
	case x > math.MaxFloat32:
		return x
	}
	var k float32
	if x < 0x1p-126 {
		x, k = x*0x1p23, -23
	}
	bits := math.Float32bits(x)
	n := int32(bits-rootHalfBits) >> 23
	k += float32(n)
	f := math.Float32frombits(bits-uint32(n<<23)) - 1
	p := float32(0x1.1b42c2p-4)
	p = float32(p*f) - 0x1.e2e9b4p-4
	p = float32(p*f) + 0x1.e650a2p-4
	p = float32(p*f) - 0x1.fb432ap-4
	p = float32(p*f) + 0x1.2332cp-3
	p = float32(p*f) - 0x1.5562e4p-3
	p = float32(p*f) + 0x1.99a546p-3
	p = float32(p*f) - 0x1.ffffeep-3
	p = float32(p*f) + 0x1.555546p-2
	square := float32(f * f)
	y := float32(float32(square*f) * p)
	y += float32(k * ln2Lo)
	y -= square / 2
	y += f
	return y + float32(k*ln2Hi)
}
