package kern

import (
	"fmt"
	"math"
)

// Winograd's F(4x4,3x3) computes 4x4 outputs of a 3x3 correlation from a 6x6 patch d and weights g with 36 products
// instead of 144 (Lavin and Gray 2016, arXiv 1509.09308): y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A. Its gradient by weights is
// dg = Gᵀ·[(Bᵀ·d·B) ⊙ (A·dy·Aᵀ)]·G. The interpolation points are 0, ±p, ±q and ∞ with p = 1/√2 and q = √2, which loses a
// third to a quarter of the precision that 0, ±1, ±2 and ∞ do. With them
//
//	Bᵀ·d: d0 - 5/2·d2 + d4;  (d4 - 2·d2) ± p·(d3 - 2·d1);  (d4 - d2/2) ± q·(d3 - d1/2);  d1 - 5/2·d3 + d5
//	G·g:  g0;  -2/3·(g0 + g2/2 ± p·g1);  1/6·(g0 + 2·g2 ± q·g1);  g2
//	Aᵀ·s: s0 + (s1+s2) + (s3+s4);  p·(s1-s2) + q·(s3-s4);  (s1+s2)/2 + 2·(s3+s4);  p/2·(s1-s2) + 2q·(s3-s4) + s5
//
// Transformed data is 36 planes, element (i,j) of every 6x6 matrix in plane 6·i+j.
//
// Without the point 0 the same maps are those of F(4,2), whose taps are g1 and g2 and whose patch is d1 to d5. And where g2 is 0
// the point ∞ is not needed, nor is d5.
const (
	winogradP = math.Sqrt2 / 2
	winogradQ = math.Sqrt2
)

// WinogradPlanes is the number of products of a tile.
const WinogradPlanes = 36

// Points are those of one axis, [From,To) of 0, p, -p, q, -q and ∞. Both axes have the point 0 or neither, and only where
// they have not may ∞ be missing.
type Points struct{ From, To int }

// The points of three taps, of the last two, and of the second alone.
var (
	AllPoints = Points{0, 6}
	TwoTaps   = Points{1, 6}
	OneTap    = Points{1, 5}
)

func needPoints(high, wide Points) {
	if high == AllPoints && wide == AllPoints {
		return
	}
	for _, p := range []Points{high, wide} {
		if p != AllPoints && p != TwoTaps && p != OneTap || p.From != high.From {
			panic(fmt.Sprintf("kern: no Winograd transforms of points %v and %v", high, wide))
		}
	}
}

// planesTo is where the planes end.
func planesTo(high, wide Points) int { return 6*(high.To-1) + wide.To }

// columnMasks[m][j] is all ones where bit j of m is set.
var columnMasks = func() (m [64][6][8]uint32) {
	for i := range m {
		for j := range 6 {
			for l := range 8 {
				m[i][j][l] = -uint32(i >> j & 1)
			}
		}
	}
	return m
}()

// columnMask has bit j set where column first+j, for j < n, is one of width.
func columnMask(first, n, width int) uint {
	lo, hi := min(max(0, -first), n), min(max(0, width-first), n)
	if lo >= hi {
		return 0
	}
	return 1<<hi - 1<<lo
}

// patches is patches of size columns, the first at column first of width and each four on from the one before.
type patches struct{ first, size, width int }

// masks is where the mask of columns from on of patch t is, or nil where all are inside.
func (p patches) masks(t, from int) *[6][8]uint32 {
	if p.whole(t) {
		return nil
	}
	return &columnMasks[columnMask(p.first+4*t, p.size, p.width)<<from]
}

func (p patches) whole(t int) bool { return p.first+4*t >= 0 && p.first+4*t+p.size <= p.width }

// run is how many of the patches from t to end can be transformed in one call: all between its first and last are whole.
func (p patches) run(t, end int) int {
	n := 1
	if t+1 < end && p.whole(t+1) {
		n += min(end-t-1, (p.width-p.size-p.first)/4-t)
	}
	return min(n+1, end-t)
}

// Image is what patches are taken of: pixel (i, j) is X[i·Row + j·Col + l] for i in [0,Height) and j in [0,Width), and 0 for others.
// Height and Width are positive. Zeros is zeros, as many as a row has elements.
type Image struct {
	X, Zeros      []float32
	Height, Width int
	Row, Col      int
}

// need panics unless the image has n elements of every pixel.
func (m *Image) need(n int) {
	need("an image", m.X, m.Height, m.Row, (m.Width-1)*m.Col+n)
	need("zeros", m.Zeros, m.Width, m.Col, n)
}

// each calls f for spans below one another and the patches beside one another that are transformed in one call: in each of below
// spans from u on, run patches from t on.
func (p patches) each(spans, count int, alone bool, f func(u, below, t, run int)) {
	if !alone && p.run(0, count) == count {
		f(0, spans, 0, count)
		return
	}
	for u := range spans {
		for t := 0; t < count; {
			run := 1
			if !alone {
				run = p.run(t, count)
			}
			f(u, 1, t, run)
			t += run
		}
	}
}

// WinogradInput transforms vecs vectors of 6x6 patches that are four rows and four columns apart, in spans of count beside one
// another, the first from row top and column left of m on:
//
//	dst[(6·i+j)·plane + (u·count+t)·tile + l] = (Bᵀ·d·B)[i][j]   where   d[i][j] is pixel (top + 4·u + i, left + 4·t + j)
//
// for i of the points high and j of the points wide. With bfloat16 element l of dst is the pair of numbers 2·l and 2·l + 1.
func (s *Set) WinogradInput(dst []float32, plane, tile int, m *Image, high, wide Points, top, left, vecs, count, spans int) {
	n := vecs * s.lanes
	if n == 0 || count == 0 || spans == 0 {
		return
	}
	needPoints(high, wide)
	needRuns("dst", dst, planesTo(high, wide), plane, spans*count, tile, n/s.Terms())
	m.need(n)
	at := patches{left + wide.From, wide.To - wide.From, m.Width}
	at.each(spans, count, s.asm == nil, func(u, below, t, run int) {
		d, y, off := dst[(u*count+t)*tile:], top+4*u+high.From, (at.first+4*t)*m.Col
		first, last := at.masks(t, wide.From), at.masks(t+run-1, wide.From)
		switch {
		case s.asm == nil:
			winogradInputGeneric(d, plane, m, high, wide, top+4*u, left+4*t, n, s.pairs)
		case high.From == 0:
			s.asm.winogradInput(&d[0], plane, tile, &m.X[0], m.Row, &m.Zeros[0], y, m.Height, off, m.Col, first, last, vecs, run, below)
		default:
			s.asm.winogradTwoInput(&d[6*plane], plane, tile, &m.X[0], m.Row, &m.Zeros[0], y, m.Height, off, m.Col, high.To, wide.To, first, last, vecs, run, below)
		}
	})
}

// pixel is element l of pixel (i, j).
func (m *Image) pixel(i, j, l int) float32 {
	if i < 0 || i >= m.Height || j < 0 || j >= m.Width {
		return 0
	}
	return m.X[i*m.Row+j*m.Col+l]
}

func winogradInputGeneric(dst []float32, plane int, m *Image, high, wide Points, top, left, n int, pairs bool) {
	for l := range n {
		var d [6][6]float32
		for i := high.From; i < high.To; i++ {
			for j := wide.From; j < wide.To; j++ {
				d[i][j] = m.pixel(top+i, left+j, l)
			}
		}
		for j := range 6 {
			d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j] = winogradBT(d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j])
		}
		for i := high.From; i < high.To; i++ {
			var o [6]float32
			o[0], o[1], o[2], o[3], o[4], o[5] = winogradBT(d[i][0], d[i][1], d[i][2], d[i][3], d[i][4], d[i][5])
			for j := wide.From; j < wide.To; j++ {
				if to := dst[(6*i+j)*plane:]; pairs {
					setHalf(to, l, o[j])
				} else {
					to[l] = o[j]
				}
			}
		}
	}
}

func winogradBT(d0, d1, d2, d3, d4, d5 float32) (_, _, _, _, _, _ float32) {
	e, u := d4-2*d2, winogradP*(d3-2*d1)
	f, v := d4-d2/2, winogradQ*(d3-d1/2)
	return d0 + d4 - 2.5*d2, e + u, e - u, f + v, f - v, d1 + d5 - 2.5*d3
}

// WinogradGradient transforms vecs vectors of 4x4 patches of an output's gradient, given like WinogradInput's:
//
//	dst[(6·i+j)·plane + (u·count+t)·tile + l] = (A·d·Aᵀ)[i][j]
func (s *Set) WinogradGradient(dst []float32, plane, tile int, m *Image, top, left, vecs, count, spans int) {
	n := vecs * s.lanes
	if n == 0 || count == 0 || spans == 0 {
		return
	}
	needRuns("dst", dst, WinogradPlanes, plane, spans*count, tile, n)
	m.need(n)
	at := patches{left, 4, m.Width}
	at.each(spans, count, s.asm == nil, func(u, below, t, run int) {
		d, y := dst[(u*count+t)*tile:], top+4*u
		if s.asm == nil {
			winogradGradientGeneric(d, plane, m, y, left+4*t, n)
			return
		}
		s.asm.winogradGradient(&d[0], plane, tile, &m.X[0], m.Row, &m.Zeros[0], y, m.Height, (left+4*t)*m.Col, m.Col,
			at.masks(t, 0), at.masks(t+run-1, 0), vecs, run, below)
	})
}

func winogradGradientGeneric(dst []float32, plane int, m *Image, top, left, n int) {
	for l := range n {
		var d [6][4]float32
		for i := range 4 {
			for j := range 4 {
				d[i][j] = m.pixel(top+i, left+j, l)
			}
		}
		for j := range 4 {
			d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j] = winogradA(d[0][j], d[1][j], d[2][j], d[3][j])
		}
		for i := range 6 {
			o := dst[6*i*plane+l:]
			o[0], o[plane], o[2*plane], o[3*plane], o[4*plane], o[5*plane] = winogradA(d[i][0], d[i][1], d[i][2], d[i][3])
		}
	}
}

func winogradA(d0, d1, d2, d3 float32) (_, _, _, _, _, _ float32) {
	e, u := d0+d2/2, winogradP*(d1+d3/2)
	f, v := d0+2*d2, winogradQ*(d1+2*d3)
	return d0, e + u, e - u, f + v, f - v, d3
}

// WinogradOutput transforms vecs vectors of the products of count tiles, s[i][j] = src[(6·i+j)·plane + t·tile + l] for i of the
// points high and j of the points wide, and 0 for others, into 4x4 patches beside each other:
//
//	y[i·row + (4·t+j)·col + l] = max(floor, (Aᵀ·s·A)[i][j] + bias[l] + extra[i·row + (4·t+j)·col + l])
//
// extra may be nil or y itself. NaN stays NaN; a floor of -Inf is no floor.
func (s *Set) WinogradOutput(y []float32, row, col int, src []float32, plane, tile int, high, wide Points, bias, extra []float32, floor float32, vecs, count int) {
	n := vecs * s.lanes
	if n == 0 || count == 0 {
		return
	}
	needRuns("y", y, 4, row, 4*count, col, n)
	needPoints(high, wide)
	needRuns("src", src, planesTo(high, wide), plane, count, tile, n)
	need("bias", bias, 1, 0, n)
	if extra != nil {
		needRuns("extra", extra, 4, row, 4*count, col, n)
	}
	switch {
	case s.asm == nil:
		winogradOutputGeneric(src, plane, tile, high, wide, n, count, func(i, j, l int, v float32) {
			at := i*row + j*col + l
			v += bias[l]
			if extra != nil {
				v += extra[at]
			}
			if v < floor {
				v = floor
			}
			y[at] = v
		})
	case high.From == 0 && extra != nil:
		s.asm.winogradOutputAdd(&y[0], row, col, &src[0], plane, tile, &bias[0], &extra[0], floor, vecs, count)
	case high.From == 0:
		s.asm.winogradOutput(&y[0], row, col, &src[0], plane, tile, &bias[0], floor, vecs, count)
	case extra != nil:
		s.asm.winogradTwoOutputAdd(&y[0], row, col, &src[plane], plane, tile, high.To, wide.To, &bias[0], &extra[0], floor, vecs, count)
	default:
		s.asm.winogradTwoOutput(&y[0], row, col, &src[plane], plane, tile, high.To, wide.To, &bias[0], floor, vecs, count)
	}
}

// WinogradOutputMask transforms like WinogradOutput, to Aᵀ·s·A + extra where the mask has a bit and to 0 elsewhere; extra
// is laid out like y, and may be nil or y itself. Column first of the mask is the first of y; the mask of the pixel in row i
// and column j starts at word i·maskRow + j·maskCol. first is a multiple of 16 but for the pure Go set.
func (s *Set) WinogradOutputMask(y []float32, row, col int, src []float32, plane, tile int, high, wide Points, extra []float32, mask []uint16, maskRow, maskCol, first, vecs, count int) {
	n := vecs * s.lanes
	if n == 0 || count == 0 {
		return
	}
	needRuns("y", y, 4, row, 4*count, col, n)
	needPoints(high, wide)
	needRuns("src", src, planesTo(high, wide), plane, count, tile, n)
	needMask(mask, 4, maskRow, 16*(4*count-1)*maskCol+first+n)
	if s.asm != nil && first%16 != 0 {
		panic(fmt.Sprintf("kern: the mask's first column is %d, which starts no word", first))
	}
	if extra != nil {
		needRuns("extra", extra, 4, row, 4*count, col, n)
	}
	switch {
	case s.asm == nil:
		winogradOutputGeneric(src, plane, tile, high, wide, n, count, func(i, j, l int, v float32) {
			at := i*row + j*col + l
			if extra != nil {
				v += extra[at]
			}
			if !bit(mask[i*maskRow+j*maskCol:], first+l) {
				v = 0
			}
			y[at] = v
		})
	case high.From == 0 && extra != nil:
		s.asm.winogradOutputAddMask(&y[0], row, col, &src[0], plane, tile, &extra[0], &mask[first/16], maskRow, maskCol, vecs, count)
	case high.From == 0:
		s.asm.winogradOutputMask(&y[0], row, col, &src[0], plane, tile, &mask[first/16], maskRow, maskCol, vecs, count)
	case extra != nil:
		s.asm.winogradTwoOutputAddMask(&y[0], row, col, &src[plane], plane, tile, high.To, wide.To, &extra[0], &mask[first/16], maskRow, maskCol, vecs, count)
	default:
		s.asm.winogradTwoOutputMask(&y[0], row, col, &src[plane], plane, tile, high.To, wide.To, &mask[first/16], maskRow, maskCol, vecs, count)
	}
}

func winogradOutputGeneric(src []float32, plane, tile int, high, wide Points, n, count int, store func(i, j, l int, v float32)) {
	for k := range count {
		for l := range n {
			var s [6][6]float32
			for i := high.From; i < high.To; i++ {
				for j := wide.From; j < wide.To; j++ {
					s[i][j] = src[(6*i+j)*plane+k*tile+l]
				}
			}
			for j := range 6 {
				s[0][j], s[1][j], s[2][j], s[3][j] = winogradAT(s[0][j], s[1][j], s[2][j], s[3][j], s[4][j], s[5][j])
			}
			for i := range 4 {
				a, b, c, d := winogradAT(s[i][0], s[i][1], s[i][2], s[i][3], s[i][4], s[i][5])
				store(i, 4*k, l, a)
				store(i, 4*k+1, l, b)
				store(i, 4*k+2, l, c)
				store(i, 4*k+3, l, d)
			}
		}
	}
}

func winogradAT(s0, s1, s2, s3, s4, s5 float32) (_, _, _, _ float32) {
	a, b, c, d := s1+s2, s3+s4, s1-s2, s3-s4
	return s0 + a + b, winogradP*c + winogradQ*d, a/2 + 2*b, s5 + winogradP/2*c + 2*winogradQ*d
}

// WinogradWeights transforms vecs vectors of 3x3 weights g[i][j] = src[(3·i+j)·srcPlane + l]:
//
//	dst[(6·i+j)·plane + l] = (G·g·Gᵀ)[i][j]
func (s *Set) WinogradWeights(dst []float32, plane int, src []float32, srcPlane, vecs int) {
	n := vecs * s.lanes
	if n == 0 {
		return
	}
	need("dst", dst, WinogradPlanes, plane, n)
	need("src", src, 9, srcPlane, n)
	if s.asm != nil {
		s.asm.winogradWeights(&dst[0], plane, &src[0], srcPlane, vecs)
		return
	}
	for l := range n {
		for p, v := range winogradWeightsGeneric(src[l:], srcPlane) {
			dst[p*plane+l] = v
		}
	}
}

// winogradWeightsGeneric is G·g·Gᵀ of g[i][j] = src[(3·i+j)·srcPlane].
func winogradWeightsGeneric(src []float32, srcPlane int) (u [WinogradPlanes]float32) {
	var t [6][3]float32
	for j := range 3 {
		g := src[j*srcPlane:]
		t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j] = winogradG(g[0], g[3*srcPlane], g[6*srcPlane])
	}
	for i, r := range t {
		o := u[6*i:][:6]
		o[0], o[1], o[2], o[3], o[4], o[5] = winogradG(r[0], r[1], r[2])
	}
	return u
}

func winogradG(g0, g1, g2 float32) (_, _, _, _, _, _ float32) {
	e, u := g0+g2/2, winogradP*g1
	f, v := g0+2*g2, winogradQ*g1
	return g0, -2. / 3 * (e + u), -2. / 3 * (e - u), 1. / 6 * (f + v), 1. / 6 * (f - v), g2
}

// FewTiles is the most tiles that WinogradProducts takes, 0 with bfloat16.
func (s *Set) FewTiles() int {
	switch {
	case s.pairs:
		return 0
	case s.asm == nil:
		return 1
	}
	return len(s.asm.winogradProducts)
}

// WinogradProducts multiplies a few tiles with vecs vectors of columns of weights that it transforms on the way, with the bits
// that WinogradWeights and Gemm make: for w[k][i][j] = src[(3·i+j)·srcPlane + k·srcRow + l] and k < terms,
//
//	dst[(6·i+j)·plane + t·tile + l] (+)= Σ_k d[(6·i+j)·dPlane + t·dTile + k] · (G·w[k]·Gᵀ)[i][j]
//
// It adds to dst if accumulate, and brings ahead into the processor's second-level cache meanwhile.
func (s *Set) WinogradProducts(dst []float32, plane, tile int, d []float32, dPlane, dTile int, src []float32, srcPlane, srcRow, terms, tiles, vecs int, accumulate bool, ahead []float32) {
	n := vecs * s.lanes
	if n == 0 || tiles == 0 {
		return
	}
	if tiles > s.FewTiles() || terms < 1 {
		panic(fmt.Sprintf("kern: products of %d tiles and %d terms, there must be at most %d and one at least", tiles, terms, s.FewTiles()))
	}
	needRuns("dst", dst, WinogradPlanes, plane, tiles, tile, n)
	needRuns("d", d, WinogradPlanes, dPlane, tiles, dTile, terms)
	needRuns("src", src, 9, srcPlane, terms, srcRow, n)
	if s.asm != nil {
		add, from, step := 0, &src[0], 0
		if accumulate {
			add = 1
		}
		if len(ahead) > 0 {
			from, step = &ahead[0], 4*len(ahead)/(6*terms*vecs)
		}
		s.asm.winogradProducts[tiles-1](&dst[0], plane, tile, &d[0], dPlane, dTile, &src[0], srcPlane, srcRow, terms, vecs, add, from, step)
		return
	}
	for t := range tiles {
		for l := range n {
			var sums [WinogradPlanes]float32
			if accumulate {
				for p := range sums {
					sums[p] = dst[p*plane+t*tile+l]
				}
			}
			for k := range terms {
				u := winogradWeightsGeneric(src[k*srcRow+l:], srcPlane)
				for p := range sums {
					sums[p] += d[p*dPlane+t*dTile+k] * u[p]
				}
			}
			for p, v := range sums {
				dst[p*plane+t*tile+l] = v
			}
		}
	}
}

// WinogradWeightsGrad transforms vecs vectors of u[i][j] = src[(6·i+j)·srcPlane + l] into 3x3 gradients:
//
//	dst[(3·i+j)·plane + l] = (Gᵀ·u·G)[i][j]
func (s *Set) WinogradWeightsGrad(dst []float32, plane int, src []float32, srcPlane, vecs int) {
	n := vecs * s.lanes
	if n == 0 {
		return
	}
	need("dst", dst, 9, plane, n)
	need("src", src, WinogradPlanes, srcPlane, n)
	if s.asm != nil {
		s.asm.winogradWeightsGrad(&dst[0], plane, &src[0], srcPlane, vecs)
		return
	}
	for l := range n {
		var t [3][6]float32
		for j := range 6 {
			u := src[j*srcPlane+l:]
			t[0][j], t[1][j], t[2][j] = winogradGT(u[0], u[6*srcPlane], u[12*srcPlane], u[18*srcPlane], u[24*srcPlane], u[30*srcPlane])
		}
		for i := range 3 {
			o := dst[3*i*plane+l:]
			o[0], o[plane], o[2*plane] = winogradGT(t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5])
		}
	}
}

func winogradGT(u0, u1, u2, u3, u4, u5 float32) (_, _, _ float32) {
	a, b := u1+u2, u3+u4
	return u0 - 2./3*a + 1./6*b, -2./3*winogradP*(u1-u2) + winogradQ/6*(u3-u4), u5 + 1./3*(b-a)
}
