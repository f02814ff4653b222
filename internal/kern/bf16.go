package kern

import "math"

// Where products take bfloat16, an element of an operand is a pair of them, of two neighbouring terms, the first in its lower half.
// It is kept as a float32 and only ever moved. Denormal numbers become 0.

// RoundBF16 is x rounded to bfloat16, to the nearest, the even one of two. NaN stays NaN.
func RoundBF16(x float32) float32 { return math.Float32frombits(uint32(bf16Bits(x)) << 16) }

func bf16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 1<<6
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// half is a number of a pair: x rounded, where denormal numbers count as 0, as processors take them.
func half(x float32) uint32 {
	if b := math.Float32bits(x); b&infinityBits == 0 {
		return b >> 31 << 15
	}
	return uint32(bf16Bits(x))
}

func pair(low, high float32) float32 { return math.Float32frombits(half(low) | half(high)<<16) }

func unpair(x float32) (low, high float32) {
	b := math.Float32bits(x)
	return math.Float32frombits(b << 16), math.Float32frombits(b &^ 0xffff)
}

// setHalf sets number l of pairs.
func setHalf(dst []float32, l int, x float32) {
	b, shift := math.Float32bits(dst[l/2]), 16*(l%2)
	dst[l/2] = math.Float32frombits(b&^(0xffff<<shift) | half(x)<<shift)
}

// Pairs rounds neighbours of rows rows to pairs, cols in each:
//
//	dst[i·dstRow + j] = (src[i·srcRow + 2·j], src[i·srcRow + 2·j + 1])
//
// Only sets of bfloat16 do it.
func (s *Set) Pairs(dst []float32, dstRow int, src []float32, srcRow, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	need("dst", dst, rows, dstRow, cols)
	need("src", src, rows, srcRow, 2*cols)
	if s.asm != nil {
		s.asm.pairs(&dst[0], dstRow, &src[0], srcRow, rows, cols)
		return
	}
	for i := range rows {
		for j := range cols {
			x := src[i*srcRow+2*j:]
			dst[i*dstRow+j] = pair(x[0], x[1])
		}
	}
}

// PairRows rounds what lies below one another in 2·rows rows of vecs vectors, of planes planes, to rows rows of pairs:
//
//	dst[p·dstPlane + i·cols + j] = (src[p·srcPlane + 2·i·cols + j], src[p·srcPlane + (2·i+1)·cols + j])
//
// where cols = vecs·Lanes(). Only sets of bfloat16 do it.
func (s *Set) PairRows(dst []float32, dstPlane int, src []float32, srcPlane, planes, rows, vecs int) {
	cols := vecs * s.lanes
	if planes == 0 || rows == 0 || cols == 0 {
		return
	}
	need("dst", dst, planes, dstPlane, rows*cols)
	need("src", src, planes, srcPlane, 2*rows*cols)
	if s.asm != nil {
		s.asm.pairRows(&dst[0], dstPlane, &src[0], srcPlane, planes, rows, vecs)
		return
	}
	for p := range planes {
		dst, src := dst[p*dstPlane:], src[p*srcPlane:]
		for i := range rows {
			for j := range cols {
				dst[i*cols+j] = pair(src[2*i*cols+j], src[(2*i+1)*cols+j])
			}
		}
	}
}
