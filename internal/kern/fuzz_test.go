package kern

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"testing"
)

// The fuzz targets run every kernel of every set on sizes, strides, places in memory and values that the fuzzer's bytes
// choose, between guard zones, against the loop in its comment. As plain tests they run their seeds.

// draws reads a fuzzer's bytes. When these are used up it goes on with noise of their hash.
type draws struct {
	bytes []byte
	noise noise
}

func newDraws(data []byte) *draws {
	h := fnv.New64a()
	h.Write(data)
	return &draws{data, noise(h.Sum64() | 1)}
}

// in is a number in [lo, hi].
func (d *draws) in(lo, hi int) int {
	v := uint32(math.Float32bits(d.noise.next())) >> 4
	if len(d.bytes) > 1 {
		v = uint32(d.bytes[0])<<8 | uint32(d.bytes[1])
		d.bytes = d.bytes[2:]
	}
	return lo + int(v)%(hi-lo+1)
}

// any is any float32, those that are easily got wrong more often than others.
func (d *draws) any() float32 {
	v := d.noise.next()
	switch d.noise % 8 {
	case 0:
		return edges[uint32(d.noise>>8)%uint32(len(edges))]
	case 1:
		return math.Float32frombits(uint32(d.noise >> 16))
	case 2:
		return 100 * v
	}
	return v
}

// operand is n values somewhere in memory.
func (d *draws) operand(n int, fill func() float32) guarded {
	return newGuardedAt(guard+d.in(0, 15), n, fill)
}

func fuzz(f *testing.F, check func(t *testing.T, s *Set, d *draws)) {
	for seed := range byte(40) {
		f.Add([]byte{seed})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range Sets() {
			check(t, s, newDraws(data))
		}
	})
}

// fuzzProducts is fuzz, and the sets of bfloat16.
func fuzzProducts(f *testing.F, check func(t *testing.T, s *Set, d *draws)) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		if b := s.BF16(); b != nil {
			other := *d
			check(t, b, &other)
		}
		check(t, s, d)
	})
}

// refuses expects f to panic and to leave the operands as they are.
func refuses(t *testing.T, what string, f func(), operands ...guarded) {
	t.Helper()
	var before [][]float32
	for _, g := range operands {
		before = append(before, slices.Clone(g.all))
	}
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Fatalf("%s: an operand is too short, and it does not panic", what)
		}
		for i, g := range operands {
			same(t, what+", refused", g.all, before[i])
		}
	}()
	f()
}

// same expects the same numbers, NaN for NaN; zeros may differ in sign.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if got[i] != w && (got[i] == got[i] || w == w) {
			t.Fatalf("%s: [%d] = %v, want %v", what, i, got[i], w)
		}
	}
}

// sums are float64 sums with the magnitudes of what was added.
type sums struct {
	value, magnitude []float64
	terms            int // the most of one sum
}

// newSums starts with the given values.
func newSums(start []float32) *sums {
	s := &sums{make([]float64, len(start)), make([]float64, len(start)), 1}
	for i, v := range start {
		s.value[i], s.magnitude[i] = float64(v), math.Abs(float64(v))
	}
	return s
}

func (s *sums) add(i int, v float64) {
	s.value[i] += v
	s.magnitude[i] += math.Abs(v)
}

// check allows a rounding of half a unit for every term and its product, which no order of summation exceeds.
func (s *sums) check(t *testing.T, what string, got []float32) {
	t.Helper()
	for i, want := range s.value {
		if !(math.Abs(float64(got[i])-want) <= float64(s.terms+1)*0x1p-24*s.magnitude[i]) {
			t.Fatalf("%s: [%d] = %v, want %v of %d terms whose magnitudes add up to %v", what, i, got[i], want, s.terms, s.magnitude[i])
		}
	}
}

func FuzzElementwise(f *testing.F) {
	rounded := func(f func(float64) float64) func(a, b, c float32) float32 {
		return func(a, _, _ float32) float32 { return float32(f(float64(a))) }
	}
	kernels := []struct {
		name string
		run  func(s *Set, dst, a, b, c []float32)
		want func(a, b, c float32) float32
	}{
		{"Add", func(s *Set, dst, a, b, _ []float32) { s.Add(dst, a, b) }, func(a, b, _ float32) float32 { return a + b }},
		{"Sub", func(s *Set, dst, a, b, _ []float32) { s.Sub(dst, a, b) }, func(a, b, _ float32) float32 { return a - b }},
		{"Mul", func(s *Set, dst, a, b, _ []float32) { s.Mul(dst, a, b) }, func(a, b, _ float32) float32 { return a * b }},
		{"Div", func(s *Set, dst, a, b, _ []float32) { s.Div(dst, a, b) }, func(a, b, _ float32) float32 { return a / b }},
		{"Max", func(s *Set, dst, a, b, _ []float32) { s.Max(dst, a, b) }, func(a, b, _ float32) float32 { return max(a, b) }},
		{"Min", func(s *Set, dst, a, b, _ []float32) { s.Min(dst, a, b) }, func(a, b, _ float32) float32 { return min(a, b) }},
		{"Gate", func(s *Set, dst, a, b, _ []float32) { s.Gate(dst, a, b) }, func(a, b, _ float32) float32 {
			if b > 0 {
				return a
			}
			return 0
		}},
		{"Above", func(s *Set, dst, a, b, _ []float32) { s.Above(dst, a, b) }, func(a, b, _ float32) float32 { return truth(a > b) }},
		{"Equal", func(s *Set, dst, a, b, _ []float32) { s.Equal(dst, a, b) }, func(a, b, _ float32) float32 { return truth(a == b) }},
		{"NotEqual", func(s *Set, dst, a, b, _ []float32) { s.NotEqual(dst, a, b) }, func(a, b, _ float32) float32 { return truth(a != b) }},
		{"Less", func(s *Set, dst, a, b, _ []float32) { s.Less(dst, a, b) }, func(a, b, _ float32) float32 { return truth(a < b) }},
		{"LessEqual", func(s *Set, dst, a, b, _ []float32) { s.LessEqual(dst, a, b) }, func(a, b, _ float32) float32 { return truth(a <= b) }},
		{"Select", func(s *Set, dst, a, b, c []float32) { s.Select(dst, a, b, c) }, func(a, b, c float32) float32 {
			if a != 0 {
				return b
			}
			return c
		}},
		{"Clamp", func(s *Set, dst, a, b, c []float32) { s.Clamp(dst, a, b, c) }, func(a, b, c float32) float32 { return min(max(b, a), c) }},
		{"Abs", func(s *Set, dst, a, _, _ []float32) { s.Abs(dst, a) }, rounded(math.Abs)},
		{"Neg", func(s *Set, dst, a, _, _ []float32) { s.Neg(dst, a) }, func(a, _, _ float32) float32 { return -a }},
		{"Sign", func(s *Set, dst, a, _, _ []float32) { s.Sign(dst, a) }, func(a, _, _ float32) float32 {
			if a == 0 || a != a {
				return a
			}
			return float32(math.Copysign(1, float64(a)))
		}},
		{"Sqrt", func(s *Set, dst, a, _, _ []float32) { s.Sqrt(dst, a) }, rounded(math.Sqrt)},
		{"Rsqrt", func(s *Set, dst, a, _, _ []float32) { s.Rsqrt(dst, a) }, func(a, _, _ float32) float32 { return 1 / float32(math.Sqrt(float64(a))) }},
		{"Floor", func(s *Set, dst, a, _, _ []float32) { s.Floor(dst, a) }, rounded(math.Floor)},
		{"Ceil", func(s *Set, dst, a, _, _ []float32) { s.Ceil(dst, a) }, rounded(math.Ceil)},
		{"Round", func(s *Set, dst, a, _, _ []float32) { s.Round(dst, a) }, rounded(math.RoundToEven)},
		{"Exp", func(s *Set, dst, a, _, _ []float32) { s.Exp(dst, a) }, func(a, _, _ float32) float32 { return exp(a) }},
		{"Log", func(s *Set, dst, a, _, _ []float32) { s.Log(dst, a) }, func(a, _, _ float32) float32 { return log(a) }},
	}
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		n := d.in(0, 150)
		for _, k := range kernels {
			a, b, c := d.operand(n, d.any), d.operand(n, d.any), d.operand(n, d.any)
			want := make([]float32, n)
			for i := range want {
				if d.noise>>i&1 != 0 && i%3 == 0 {
					b.v[i] = a.v[i]
				}
				want[i] = k.want(a.v[i], b.v[i], c.v[i])
			}
			out := d.operand(n, nan)
			dst := [][]float32{out.v, a.v, b.v, c.v}[d.in(0, 3)]
			what := fmt.Sprintf("%s of %d on %s", k.name, n, s.Name())
			k.run(s, dst, a.v, b.v, c.v)
			same(t, what, dst, want)
			for _, g := range []guarded{a, b, c, out} {
				g.check(t, what)
			}
			if n > 0 {
				refuses(t, what, func() { k.run(s, out.v, a.v[:n-1], b.v, c.v) }, out)
			}
		}
		// The row and the columns of a matrix.
		cols, rows := d.in(1, 130), d.in(0, 90)
		x, y := d.operand(rows*cols, d.noise.next), d.operand(cols, d.noise.next)
		want, all := newSums(y.v), newSums(make([]float32, 1))
		want.terms, all.terms = rows+1, len(x.v)
		for i, v := range x.v {
			want.add(i%cols, float64(v))
			all.add(0, float64(v))
		}
		what := fmt.Sprintf("SumColumns of %d rows of %d on %s", rows, cols, s.Name())
		s.SumColumns(y.v, x.v)
		want.check(t, what, y.v)
		x.check(t, what)
		y.check(t, what)
		all.check(t, what+", all", []float32{s.SumRow(x.v)})
		if rows > 0 && cols > 1 {
			refuses(t, what, func() { s.SumColumns(y.v, x.v[1:]) }, y)
		}
	})
}

func FuzzFinish(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		rows, cols := d.in(0, 6), d.in(0, 80)
		yRow, aRow := cols+d.in(0, 5), cols+d.in(0, 5)
		size := func(row int) int { return max(0, (rows-1)*row+cols) }
		if rows == 0 || cols == 0 {
			size = func(int) int { return 0 }
		}
		y, extra := d.operand(size(yRow), d.any), d.operand(size(yRow), d.any)
		a, b := d.operand(size(aRow), d.any), d.operand(cols, d.any)
		floor := []float32{0, float32(math.Inf(-1)), 0.25, -3}[d.in(0, 3)]
		var add []float32
		mode := d.in(0, 2)
		switch mode {
		case 1:
			add = extra.v
		case 2:
			add = y.v
		}
		masked, first := d.in(0, 1) == 1, d.in(0, 33)
		maskRow := MaskWords(first+cols) + d.in(0, 2)
		mask := newMask(rows*maskRow, d.any)
		want := slices.Clone(y.v)
		for i := range rows {
			for j := range cols {
				at := i*yRow + j
				v := a.v[i*aRow+j]
				if !masked {
					v += b.v[j]
				}
				if add != nil {
					v += add[at]
				}
				switch {
				case !masked:
					v = max(floor, v)
				case !bit(mask[i*maskRow:], first+j):
					v = 0
				}
				want[at] = v
			}
		}
		what := fmt.Sprintf("Finish on %s: %d rows of %d, every %d and %d, extra %d, masked %v", s.Name(), rows, cols, yRow, aRow, mode, masked)
		run := func(a []float32) {
			if masked {
				s.FinishMask(y.v, yRow, a, aRow, add, mask, maskRow, first, rows, cols)
			} else {
				s.Finish(y.v, yRow, a, aRow, b.v, add, floor, rows, cols)
			}
		}
		if len(a.v) > 0 {
			refuses(t, what, func() { run(a.v[1:]) }, y)
		}
		run(a.v)
		same(t, what, y.v, want)
		for _, g := range []guarded{y, extra, a, b} {
			g.check(t, what)
		}
	})
}

func FuzzDepthwise(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		cols, count := d.in(1, 70), d.in(0, 9)
		xStep, yStep := d.in(0, 2*cols), cols+d.in(0, 4)
		var taps []Tap
		reach := 0
		for i := range d.in(0, 9) {
			taps = append(taps, Tap{X: d.in(0, 3*cols), W: i * (cols + d.in(0, 2))})
			if i > 0 { // weights of one tap are no other's
				taps[i].W = max(taps[i].W, taps[i-1].W+cols)
			}
			reach = max(reach, taps[i].X)
		}
		weights := 0
		if len(taps) > 0 {
			weights = taps[len(taps)-1].W + cols
		}
		last := max(0, count-1)
		x, y := d.operand(last*xStep+reach+cols, d.noise.next), d.operand(last*yStep+cols, d.noise.next)
		w, dw, bias := d.operand(weights, d.noise.next), d.operand(weights, d.noise.next), d.operand(cols, d.noise.next)
		floor := []float32{0, float32(math.Inf(-1)), 0.25}[d.in(0, 2)]
		what := fmt.Sprintf("Depthwise on %s: %d pixels of %d, every %d and %d, taps %v", s.Name(), count, cols, xStep, yStep, taps)

		grad := newSums(dw.v)
		grad.terms = count + 1
		want := slices.Clone(y.v)
		forward := newSums(y.v)
		forward.terms = len(taps) + 1
		for p := range count {
			for c := range cols {
				at := p*yStep + c
				forward.value[at], forward.magnitude[at] = 0, 0
				forward.add(at, float64(bias.v[c]))
				for _, tap := range taps {
					in := float64(x.v[p*xStep+tap.X+c])
					forward.add(at, in*float64(w.v[tap.W+c]))
					grad.add(tap.W+c, in*float64(want[at]))
				}
				forward.value[at] = max(forward.value[at], float64(floor))
				forward.magnitude[at] = max(forward.magnitude[at], math.Abs(forward.value[at]))
			}
		}
		if len(taps) > 0 && count > 0 {
			refuses(t, what, func() { s.DepthwiseGrad(dw.v[1:], x.v, xStep, y.v, yStep, NewTaps(taps), count, cols) }, dw)
			refuses(t, what, func() { s.Depthwise(y.v, yStep, x.v[1:], xStep, w.v, NewTaps(taps), bias.v, floor, count, cols) }, y)
		}
		s.DepthwiseGrad(dw.v, x.v, xStep, y.v, yStep, NewTaps(taps), count, cols)
		grad.check(t, what+", gradient", dw.v)
		s.Depthwise(y.v, yStep, x.v, xStep, w.v, NewTaps(taps), bias.v, floor, count, cols)
		forward.check(t, what, y.v)
		for _, g := range []guarded{x, y, w, dw, bias} {
			g.check(t, what)
		}
	})
}

func FuzzDepthwise3x3(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		stride, height, width, cols := d.in(1, 2), d.in(1, 9), d.in(1, 40), d.in(1, 70)
		outH := (height + stride - 1) / stride
		first := d.in(0, outH-1)
		operand := func(n int) guarded { return d.operand(n, d.noise.next) }
		checkDepthwise3x3(t, s, stride, height, width, cols, first, d.in(0, outH-first), d.in(0, 1) == 1, operand)
	})
}

func FuzzPositive(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		rows, cols := d.in(0, 9), d.in(1, 70)
		checkPositive(t, s, rows, cols, d.operand(rows*cols, d.any), newMask(rows*MaskWords(cols)+1, d.any))
	})
}

func FuzzGemm(f *testing.F) {
	fuzzProducts(f, func(t *testing.T, s *Set, d *draws) {
		vecs := d.in(1, s.MaxVecs())
		g := Tiles{Rows: d.in(1, s.MaxRows(vecs)), Vecs: vecs, K: d.in(1, 60), Count: d.in(0, 3), Accumulate: d.in(0, 1) == 1}
		g.Strips, g.BStrip = d.in(0, 4), d.in(0, 90)
		strip, strips := g.Vecs*s.Lanes(), max(1, g.Strips)
		cols := strips * strip
		g.ARow, g.ACol, g.AStep = d.in(0, 70), d.in(0, 70), d.in(0, 90)
		g.BRow, g.BStep = d.in(0, 2*strip), d.in(0, 90)
		g.Runs, g.ARun = d.in(0, 3), d.in(0, 90)
		runs := max(1, g.Runs)
		g.CRow = cols + d.in(0, 20)
		g.CStep = (g.Rows-1)*g.CRow + cols + d.in(0, 20)
		last := max(0, g.Count-1)
		element := s.elements(d.noise.next)
		a := d.operand(last*g.AStep+(g.Rows-1)*g.ARow+(runs-1)*g.ARun+(g.K-1)*g.ACol+1, element)
		b := d.operand((strips-1)*g.BStrip+last*g.BStep+(runs*g.K-1)*g.BRow+strip, element)
		c := d.operand(last*g.CStep+(g.Rows-1)*g.CRow+cols, d.noise.next)
		want := newSums(c.v)
		want.terms = runs*g.K*s.Terms() + 1
		for n := range g.Count {
			for r := range g.Rows {
				for j := range cols {
					at := n*g.CStep + r*g.CRow + j
					if !g.Accumulate {
						want.value[at], want.magnitude[at] = 0, 0
					}
					for l := range runs * g.K {
						s.product(a.v[n*g.AStep+r*g.ARow+l/g.K*g.ARun+l%g.K*g.ACol], b.v[j/strip*g.BStrip+n*g.BStep+l*g.BRow+j%strip],
							func(p float64) { want.add(at, p) })
					}
				}
			}
		}
		what := fmt.Sprintf("Gemm on %s: %+v", s.Name(), g)
		g.Ahead = d.operand(d.in(0, 300), d.any).v // is read by nobody
		if g.Count > 0 {
			refuses(t, what, func() { s.Gemm(&g, a.v[1:], b.v, c.v) }, c)
			refuses(t, what, func() { s.Gemm(&g, a.v, b.v[1:], c.v) }, c)
			refuses(t, what, func() { s.Gemm(&g, a.v, b.v, c.v[1:]) }, c)
		}
		s.Gemm(&g, a.v, b.v, c.v)
		want.check(t, what, c.v)
		for _, g := range []guarded{a, b, c} {
			g.check(t, what)
		}
	})
}

// With the right operand in registers products have the bits of Gemm.
func FuzzGemmHeld(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		if s.HeldTerms() == 0 {
			return
		}
		g := Tiles{Rows: d.in(1, 30), Vecs: 1, K: s.HeldTerms(), Count: d.in(0, 3), ACol: 1, BRow: s.Lanes()}
		g.ARow, g.AStep, g.BStep, g.CRow = d.in(0, 40), d.in(0, 90), d.in(0, 90), s.Lanes()+d.in(0, 20)
		g.CStep = (g.Rows-1)*g.CRow + s.Lanes() + d.in(0, 20)
		last := max(0, g.Count-1)
		a := d.operand(last*g.AStep+(g.Rows-1)*g.ARow+g.K, d.noise.next)
		b := d.operand(last*g.BStep+g.K*g.BRow, d.noise.next)
		c := d.operand(last*g.CStep+(g.Rows-1)*g.CRow+s.Lanes(), d.noise.next)
		want := slices.Clone(c.v)
		row := g
		row.Rows = 1
		for r := range g.Rows {
			s.Gemm(&row, a.v[r*g.ARow:], b.v, want[r*g.CRow:])
		}
		what := fmt.Sprintf("GemmHeld on %s: %+v", s.Name(), g)
		g.Ahead = d.operand(d.in(0, 300), d.any).v // is read by nobody
		if g.Count > 0 {
			refuses(t, what, func() { s.GemmHeld(&g, a.v[1:], b.v, c.v) }, c)
			refuses(t, what, func() { s.GemmHeld(&g, a.v, b.v[1:], c.v) }, c)
			refuses(t, what, func() { s.GemmHeld(&g, a.v, b.v, c.v[1:]) }, c)
			other := g
			other.K--
			refuses(t, what, func() { s.GemmHeld(&other, a.v, b.v, c.v) }, c)
		}
		s.GemmHeld(&g, a.v, b.v, c.v)
		same(t, what, c.v, want)
		for _, g := range []guarded{a, b, c} {
			g.check(t, what)
		}
	})
}

func FuzzTranspose(f *testing.F) {
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		rows, cols := s.Lanes()*d.in(0, 4), s.Lanes()*d.in(0, 4)
		dstRow, srcRow := rows+d.in(0, 20), cols+d.in(0, 20)
		size := func(rows, row, cols int) int {
			if rows == 0 || cols == 0 {
				return 0
			}
			return (rows-1)*row + cols
		}
		dst, src := d.operand(size(cols, dstRow, rows), d.any), d.operand(size(rows, srcRow, cols), d.any)
		ahead := d.in(-3000, 3000)
		want := slices.Clone(dst.v)
		for i := range rows {
			for j := range cols {
				want[j*dstRow+i] = src.v[i*srcRow+j]
			}
		}
		what := fmt.Sprintf("Transpose on %s: [%d,%d], rows every %d and %d", s.Name(), rows, cols, srcRow, dstRow)
		if len(src.v) > 0 {
			refuses(t, what, func() { s.Transpose(dst.v, dstRow, src.v[1:], srcRow, rows, cols, ahead) }, dst)
			refuses(t, what, func() { s.Transpose(dst.v[1:], dstRow, src.v, srcRow, rows, cols, ahead) }, dst)
			refuses(t, what, func() { s.Transpose(dst.v, dstRow, src.v, srcRow, rows, cols-1, ahead) }, dst)
		}
		s.Transpose(dst.v, dstRow, src.v, srcRow, rows, cols, ahead)
		same(t, what, dst.v, want)
		src.check(t, what)
		dst.check(t, what)
	})
}

func FuzzWinograd(f *testing.F) {
	bt, g, a := toomCook()
	fuzz(f, func(t *testing.T, s *Set, d *draws) {
		vecs := d.in(0, 3)
		n := vecs * s.Lanes()
		count := d.in(0, 5)
		tile, col := n+d.in(0, 20), n+d.in(0, 20)
		plane := max(1, count)*tile + d.in(0, 20)
		next := d.noise.next
		what := fmt.Sprintf("Winograd on %s: %d vectors of %d tiles every %d, planes every %d, columns every %d", s.Name(), vecs, count, tile, plane, col)
		fresh := func(planes, every, each int) guarded { return d.operand((planes-1)*every+each, next) }
		run := max(0, (count-1)*tile+n) // elements of a plane from the first tile's to the last one's
		// square is the matrix at one place of planes.
		square := func(x []float32, size, every, l int) matrix {
			m := make(matrix, size)
			for i := range m {
				for j := range size {
					m[i] = append(m[i], float64(x[(size*i+j)*every+l]))
				}
			}
			return m
		}
		// transform compares dst, size x size planes of count tiles, with left·m·leftᵀ.
		all := [2]Points{AllPoints, AllPoints}
		transform := func(name string, left matrix, size, every, count int, points [2]Points, dst guarded, m func(tile, l int) matrix, in ...guarded) {
			t.Helper()
			for k := range count {
				for l := range n {
					want, mag := sandwich(left, m(k, l))
					closeTo(t, what+", "+name, func(i, j int) float32 {
						if v := dst.v[(size*i+j)*every+k*tile+l]; points[0].has(i) && points[1].has(j) {
							return v
						} else if v != 7 {
							t.Fatalf("%s, %s: wrote to plane %d, %d", what, name, i, j)
						}
						return float32(want[i][j])
					}, want, mag)
				}
			}
			for i, v := range dst.v {
				if at := i % every; (at >= count*tile || at%tile >= n) && v != 7 {
					t.Fatalf("%s, %s: wrote between the tiles, at %d", what, name, i)
				}
			}
			for _, g := range append(in, dst) {
				g.check(t, what+", "+name)
			}
		}
		between := func(x guarded) guarded { // marks what is not to be written
			for i := range x.v {
				x.v[i] = 7
			}
			return x
		}
		// patches are in an image that the first of them may begin before, or behind, and the last may end behind.
		spans := d.in(1, 10)
		if count%spans != 0 {
			spans = 1
		}
		across := count / spans
		var top, left int
		patches := func(size int) (x guarded, m Image, patch func(tile, l int) matrix) {
			top, left = d.in(-9, 9), d.in(-9, 9)
			m = Image{Height: d.in(1, 4*spans+9), Width: d.in(1, 4*across+9), Col: col}
			m.Row = (m.Width-1)*col + n + d.in(0, 9)
			x = d.operand((m.Height-1)*m.Row+(m.Width-1)*col+n, next)
			m.X, m.Zeros = x.v, d.operand((m.Width-1)*col+n, func() float32 { return 0 }).v
			return x, m, func(tile, l int) matrix {
				p := make(matrix, size)
				for i := range p {
					p[i] = make([]float64, size)
					for j := range p[i] {
						y, x := top+4*(tile/across)+i, left+4*(tile%across)+j
						if y >= 0 && y < m.Height && x >= 0 && x < m.Width {
							p[i][j] = float64(m.X[y*m.Row+x*col+l])
						}
					}
				}
				return p
			}
		}
		shorten := func(m Image) *Image {
			if d.in(0, 1) == 0 {
				m.X = m.X[:len(m.X)-1]
			} else {
				m.Zeros = m.Zeros[:len(m.Zeros)-1]
			}
			return &m
		}

		points := everyPoints[d.in(0, len(everyPoints)-1)]
		high, wide := points[0], points[1]
		unused := (WinogradPlanes - planesTo(high, wide)) * plane // elements of planes behind the last
		x, m, patch := patches(6)
		dst := between(fresh(WinogradPlanes, plane, run))
		if n > 0 && count > 0 {
			short := shorten(m)
			refuses(t, what, func() { s.WinogradInput(dst.v, plane, tile, short, high, wide, top, left, vecs, across, spans) }, dst)
			refuses(t, what, func() {
				s.WinogradInput(dst.v[unused+1:], plane, tile, &m, high, wide, top, left, vecs, across, spans)
			}, dst)
			refuses(t, what, func() { s.WinogradInput(dst.v, plane, tile, &m, AllPoints, OneTap, top, left, vecs, across, spans) }, dst)
			refuses(t, what, func() { s.WinogradInput(dst.v, plane, -1, &m, high, wide, top, left, vecs, across, spans) }, dst)
		}
		s.WinogradInput(dst.v, plane, tile, &m, high, wide, top, left, vecs, across, spans)
		transform("input", bt, 6, plane, count, points, dst, patch, x)
		x, m, patch = patches(4)
		dst = between(fresh(WinogradPlanes, plane, run))
		if n > 0 && count > 0 {
			short := shorten(m)
			refuses(t, what, func() { s.WinogradGradient(dst.v, plane, tile, short, top, left, vecs, across, spans) }, dst)
			refuses(t, what, func() { s.WinogradGradient(dst.v[1:], plane, tile, &m, top, left, vecs, across, spans) }, dst)
		}
		s.WinogradGradient(dst.v, plane, tile, &m, top, left, vecs, across, spans)
		transform("gradient", a, 6, plane, count, all, dst, patch, x)

		w := fresh(9, col, n)
		dst = between(fresh(WinogradPlanes, plane, n))
		s.WinogradWeights(dst.v, plane, w.v, col, vecs)
		transform("weights", g, 6, plane, 1, all, dst, func(_, l int) matrix { return square(w.v, 3, col, l) }, w)
		if few := min(count, s.FewTiles()); n > 0 && few > 0 {
			terms := d.in(1, 5)
			each := terms*n + d.in(0, 20) // elements from one tap to the next, and from one plane of weights
			dTile := terms + d.in(0, 3)
			w, in, u := fresh(9, each, terms*n), fresh(WinogradPlanes, few*dTile, (few-1)*dTile+terms), make([]float32, WinogradPlanes*each)
			s.WinogradWeights(u, each, w.v, each, terms*vecs)
			got, want := between(fresh(WinogradPlanes, plane, (few-1)*tile+n)), fresh(WinogradPlanes, plane, (few-1)*tile+n)
			copy(want.v, got.v)
			accumulate := d.in(0, 1) == 1
			for p := range WinogradPlanes {
				for at := 0; at < vecs; at++ {
					lane := at * s.Lanes()
					s.Gemm(&Tiles{Rows: few, Vecs: 1, K: terms, Count: 1, ARow: dTile, ACol: 1, BRow: n, CRow: tile, Accumulate: accumulate},
						in.v[p*few*dTile:], u[p*each+lane:], want.v[p*plane+lane:])
				}
			}
			products := func(got, in, w []float32, terms, tiles int) {
				s.WinogradProducts(got, plane, tile, in, few*dTile, dTile, w, each, n, terms, tiles, vecs, accumulate, u[:d.in(0, len(u))])
			}
			refuses(t, what, func() { products(got.v[1:], in.v, w.v, terms, few) }, got)
			refuses(t, what, func() { products(got.v, in.v[1:], w.v, terms, few) }, got)
			refuses(t, what, func() { products(got.v, in.v, w.v[1:], terms, few) }, got)
			refuses(t, what, func() { products(got.v, in.v, w.v, 0, few) }, got)
			refuses(t, what, func() { products(got.v, in.v, w.v, terms, s.FewTiles()+1) }, got)
			products(got.v, in.v, w.v, terms, few)
			same(t, fmt.Sprintf("%s, %d terms of %d tiles with weights", what, terms, few), got.v, want.v)
			for _, g := range []guarded{got, in, w} {
				g.check(t, what+", products")
			}
		}
		src, dw := fresh(WinogradPlanes, plane, n), between(fresh(9, col, n))
		s.WinogradWeightsGrad(dw.v, col, src.v, plane, vecs)
		transform("weights' gradient", g.t(), 3, col, 1, all, dw, func(_, l int) matrix { return square(src.v, 6, plane, l) }, src)

		src = fresh(WinogradPlanes, plane, run)
		columns := max(0, 4*count-1)
		row := columns*col + n + d.in(0, 20)
		size := 3*row + columns*col + n
		y, extra, bias := d.operand(size, next), d.operand(size, next), d.operand(n, next)
		first := 16 * d.in(0, 2)
		maskCol := MaskWords(first+n) + d.in(0, 2)
		maskRow := 4*count*maskCol + d.in(0, 3)
		gate := newMask(3*maskRow+columns*maskCol+MaskWords(first+n), next)
		old := slices.Clone(y.v)
		floor := []float32{0, float32(math.Inf(-1))}[d.in(0, 1)]
		add := [][]float32{nil, extra.v, y.v}[d.in(0, 2)]
		before := slices.Clone(add)
		masked := d.in(0, 1) == 1
		output := func(y, src []float32, gate []uint16) {
			if masked {
				s.WinogradOutputMask(y, row, col, src, plane, tile, high, wide, add, gate, maskRow, maskCol, first, vecs, count)
			} else {
				s.WinogradOutput(y, row, col, src, plane, tile, high, wide, bias.v, add, floor, vecs, count)
			}
		}
		if n > 0 && count > 0 {
			refuses(t, what, func() { output(y.v[1:], src.v, gate) }, y)
			refuses(t, what, func() { output(y.v, src.v[unused+1:], gate) }, y)
			if masked {
				refuses(t, what, func() { output(y.v, src.v, gate[1:]) }, y)
			}
		}
		output(y.v, src.v, gate)
		written := make([]bool, size)
		for k := range count {
			for l := range n {
				want, mag := sandwich(a.t(), square(src.v, 6, plane, k*tile+l).only(high, wide))
				plus := func(i, j int, v float32) {
					want[i][j] += float64(v)
					mag[i][j] += math.Abs(float64(v))
				}
				for i := range 4 {
					for j := range 4 {
						at := i*row + (4*k+j)*col + l
						written[at] = true
						if !masked {
							plus(i, j, bias.v[l])
						}
						if before != nil {
							plus(i, j, before[at])
						}
						switch {
						case !masked:
							want[i][j] = max(float64(floor), want[i][j])
						case !bit(gate[i*maskRow+(4*k+j)*maskCol:], first+l):
							want[i][j] = 0
						}
					}
				}
				closeTo(t, what+", output", func(i, j int) float32 { return y.v[i*row+(4*k+j)*col+l] }, want, mag)
			}
		}
		for i, w := range written {
			if !w && y.v[i] != old[i] {
				t.Fatalf("%s, output: wrote between its elements, at %d", what, i)
			}
		}
		for _, g := range []guarded{y, extra, bias, src} {
			g.check(t, what+", output")
		}
	})
}
