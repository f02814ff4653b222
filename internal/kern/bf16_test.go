package kern

import (
	"math"
	"testing"
)

// everyBF16 runs f under every set of bfloat16 this machine has, with the set it belongs to.
func everyBF16(t *testing.T, f func(t *testing.T, s, b *Set)) {
	everySet(t, func(t *testing.T, s *Set) {
		if b := s.BF16(); b != nil {
			f(t, s, b)
		}
	})
}

// samePairs expects the same pairs, NaN for NaN.
func samePairs(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		g0, g1 := unpair(got[i])
		w0, w1 := unpair(want[i])
		same(t, what, []float32{g0, g1}, []float32{w0, w1})
	}
}

func TestRoundBF16(t *testing.T) {
	for _, c := range []struct{ x, want float32 }{
		{1, 1}, {1 + 0x1p-9, 1}, {1 + 0x1p-8, 1}, {1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-7}, {1 + 3*0x1p-8, 1 + 0x1p-6}, {-1 - 0x1p-8 - 0x1p-20, -1 - 0x1p-7},
		{math.MaxFloat32, float32(math.Inf(1))}, {float32(math.Inf(-1)), float32(math.Inf(-1))}, {0, 0}, {0x1p-130, 0x1p-130},
	} {
		if got := RoundBF16(c.x); got != c.want {
			t.Errorf("RoundBF16(%v) = %v, want %v", c.x, got, c.want)
		}
	}
	for _, bits := range []uint32{0x7f800001, 0x7fffffff, 0xffff8000} {
		if x := RoundBF16(math.Float32frombits(bits)); x == x {
			t.Errorf("RoundBF16 of NaN %x = %v", bits, x)
		}
	}
	rnd := noise(3)
	for range 1000 {
		x := rnd.next()
		if got := RoundBF16(x); math.Abs(float64(got-x)) > math.Abs(float64(x))*0x1p-8 {
			t.Fatalf("RoundBF16(%v) = %v", x, got)
		}
	}
}

// The largest denormal number would round to the smallest normal one.
func TestPairsOfDenormalNumbers(t *testing.T) {
	everyBF16(t, func(t *testing.T, _, s *Set) {
		src := []float32{math.Float32frombits(0x7fffff), math.Float32frombits(0x807fffff), 0x1p-126, -0x1p-126}
		dst := make([]float32, 2)
		s.Pairs(dst, 2, src, 4, 1, 2)
		samePairs(t, "Pairs", dst, []float32{pair(0, 0), pair(0x1p-126, -0x1p-126)})
	})
}

func TestPairs(t *testing.T) {
	everyBF16(t, func(t *testing.T, _, s *Set) {
		for cols := 1; cols < 70; cols++ {
			for rows := 1; rows < 4; rows++ {
				checkPairs(t, s, newDraws([]byte{byte(rows)}), rows, cols)
			}
		}
		for vecs := 1; vecs < 4; vecs++ {
			for rows := 1; rows < 5; rows++ {
				checkPairRows(t, s, newDraws([]byte{byte(rows)}), 1+rows%3, rows, vecs)
			}
		}
	})
}

func FuzzPairs(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		if s = s.BF16(); s != nil {
			checkPairs(t, s, d, d.in(1, 5), d.in(1, 100))
			checkPairRows(t, s, d, d.in(1, 3), d.in(1, 5), d.in(1, 4))
		}
	})
}

func checkPairs(t *testing.T, s *Set, d *draws, rows, cols int) {
	t.Helper()
	dstRow, srcRow := cols+d.in(0, 5), 2*cols+d.in(0, 5)
	src, dst := d.operand((rows-1)*srcRow+2*cols, d.any), d.operand((rows-1)*dstRow+cols, d.noise.next)
	refuses(t, "Pairs", func() { s.Pairs(dst.v, dstRow, src.v[:len(src.v)-1], srcRow, rows, cols) }, src, dst)
	want := append([]float32(nil), dst.v...)
	for i := range rows {
		for j := range cols {
			want[i*dstRow+j] = pair(src.v[i*srcRow+2*j], src.v[i*srcRow+2*j+1])
		}
	}
	s.Pairs(dst.v, dstRow, src.v, srcRow, rows, cols)
	src.check(t, "Pairs")
	dst.check(t, "Pairs")
	samePairs(t, "Pairs", dst.v, want)
}

func checkPairRows(t *testing.T, s *Set, d *draws, planes, rows, vecs int) {
	t.Helper()
	cols := vecs * s.Lanes()
	dstPlane, srcPlane := rows*cols+d.in(0, 5), 2*rows*cols+d.in(0, 5)
	src, dst := d.operand((planes-1)*srcPlane+2*rows*cols, d.any), d.operand((planes-1)*dstPlane+rows*cols, d.noise.next)
	refuses(t, "PairRows", func() { s.PairRows(dst.v, dstPlane, src.v[1:], srcPlane, planes, rows, vecs) }, src, dst)
	want := append([]float32(nil), dst.v...)
	for p := range planes {
		for i := range rows {
			for j := range cols {
				at := p*srcPlane + 2*i*cols + j
				want[p*dstPlane+i*cols+j] = pair(src.v[at], src.v[at+cols])
			}
		}
	}
	s.PairRows(dst.v, dstPlane, src.v, srcPlane, planes, rows, vecs)
	src.check(t, "PairRows")
	dst.check(t, "PairRows")
	samePairs(t, "PairRows", dst.v, want)
}

// What the transform of a set of bfloat16 makes is that of the other set, rounded.
func TestWinogradInputBF16(t *testing.T) {
	everyBF16(t, func(t *testing.T, s, b *Set) {
		for seed := range byte(60) {
			checkWinogradInputBF16(t, s, b, newDraws([]byte{seed}))
		}
	})
}

func FuzzWinogradInputBF16(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		if b := s.BF16(); b != nil {
			checkWinogradInputBF16(t, s, b, d)
		}
	})
}

func checkWinogradInputBF16(t *testing.T, s, b *Set, d *draws) {
	t.Helper()
	high, wide := AllPoints, AllPoints
	if d.in(0, 1) == 1 {
		high, wide = []Points{TwoTaps, OneTap}[d.in(0, 1)], []Points{TwoTaps, OneTap}[d.in(0, 1)]
	}
	vecs, count, spans := d.in(1, 3), d.in(1, 4), d.in(1, 3)
	n := vecs * s.Lanes()
	height, width, col := d.in(1, 14), d.in(1, 14), n+d.in(0, 5)
	row := width*col + d.in(0, 3)
	x, zeros := d.operand((height-1)*row+(width-1)*col+n, d.noise.next), make([]float32, width*col)
	m := Image{X: x.v, Zeros: zeros, Height: height, Width: width, Row: row, Col: col}
	top, left := -d.in(0, 3), -d.in(0, 3)
	tile := n + d.in(0, 3)
	plane := spans * count * tile
	want := make([]float32, WinogradPlanes*plane)
	s.WinogradInput(want, plane, tile, &m, high, wide, top, left, vecs, count, spans)
	got := d.operand(len(want), func() float32 { return 0 })
	b.WinogradInput(got.v, plane, tile, &m, high, wide, top, left, vecs, count, spans)
	got.check(t, "WinogradInput")
	x.check(t, "WinogradInput")
	for i := high.From; i < high.To; i++ {
		for j := wide.From; j < wide.To; j++ {
			for k := range spans * count {
				at := (6*i+j)*plane + k*tile
				pairs := make([]float32, n/2)
				for l := range pairs {
					pairs[l] = pair(want[at+2*l], want[at+2*l+1])
				}
				samePairs(t, "WinogradInput", got.v[at:][:n/2], pairs)
				for _, v := range got.v[at+n/2:][:n/2] {
					if v != 0 {
						t.Fatalf("WinogradInput: wrote behind the pairs")
					}
				}
			}
		}
	}
}
