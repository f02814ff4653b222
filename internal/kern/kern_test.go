package kern

import (
	"math"
	"os"
	"strings"
	"testing"
)

// everySet runs f under every set this machine has, and fails for those that ADAAD_REQUIRE_SETS names and it lacks.
func everySet(t *testing.T, f func(t *testing.T, s *Set)) {
	for name := range strings.SplitSeq(os.Getenv("ADAAD_REQUIRE_SETS"), ",") {
		if name != "" {
			if _, err := Named(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range Sets() {
		t.Run(s.Name(), func(t *testing.T) { f(t, s) })
	}
}

// everyProduct is everySet, and the sets of bfloat16.
func everyProduct(t *testing.T, f func(t *testing.T, s *Set)) {
	everySet(t, f)
	for _, s := range Sets() {
		if b := s.BF16(); b != nil {
			t.Run(b.Name(), func(t *testing.T) { f(t, b) })
		}
	}
}

// elements makes what operands of products are filled with.
func (s *Set) elements(next func() float32) func() float32 {
	if s.pairs {
		return func() float32 { return pair(next(), next()) }
	}
	return next
}

// product calls add with the products that a product of two elements is the sum of.
func (s *Set) product(x, y float32, add func(p float64)) {
	if !s.pairs {
		add(float64(x) * float64(y))
		return
	}
	x0, x1 := unpair(x)
	y0, y1 := unpair(y)
	add(float64(x0) * float64(y0))
	add(float64(x1) * float64(y1))
}

// noise is a fixed sequence of values in [-1, 1).
type noise uint64

func (r *noise) next() float32 {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return float32(int32(uint64(*r)>>32)) / (1 << 31)
}

const guard = 37 // odd, so that operands are not aligned either

// guarded is a slice of n values with canaries on both sides.
type guarded struct {
	all, v []float32
	before int // canaries before v
}

func canary(i int) float32 { return 1e30 + float32(i)*1e27 }

func newGuarded(n int, fill func() float32) guarded { return newGuardedAt(guard, n, fill) }

func newGuardedAt(before, n int, fill func() float32) guarded {
	all := make([]float32, before+n+guard)
	for i := range all {
		all[i] = canary(i)
	}
	g := guarded{all, all[before : before+n : before+n], before}
	for i := range g.v {
		g.v[i] = fill()
	}
	return g
}

func (g guarded) check(t *testing.T, what string) {
	t.Helper()
	for i, v := range g.all {
		if (i < g.before || i >= g.before+len(g.v)) && v != canary(i) {
			t.Fatalf("%s: wrote outside the operand, at %d of %d", what, i-g.before, len(g.v))
		}
	}
}

func nan() float32 { return float32(math.NaN()) }

// newMask is words of random bits.
func newMask(words int, next func() float32) []uint16 {
	mask := make([]uint16, words)
	for i := range mask {
		mask[i] = uint16(math.Float32bits(next()) >> 3)
	}
	return mask
}

func TestPositive(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		for _, cols := range []int{1, 7, 8, 9, 15, 16, 17, 24, 25, 31, 32, 33, 40, 64, 65} {
			for rows := range 4 {
				rnd := noise(uint32(rows*100 + cols + 1))
				x := newGuarded(rows*cols, rnd.next)
				for i, v := range []float32{0, float32(math.Copysign(0, -1)), nan(), float32(math.Inf(1)), float32(math.Inf(-1)), math.SmallestNonzeroFloat32} {
					if 3*i < len(x.v) {
						x.v[3*i] = v
					}
				}
				checkPositive(t, s, rows, cols, x, newMask(rows*MaskWords(cols)+1, rnd.next))
			}
		}
	})
}

// checkPositive compares Positive with its definition; the mask has a word too many, which must stay.
func checkPositive(t *testing.T, s *Set, rows, cols int, x guarded, mask []uint16) {
	t.Helper()
	words := MaskWords(cols)
	after := mask[rows*words]
	s.Positive(mask[:rows*words], x.v, rows, cols)
	x.check(t, "Positive")
	if mask[rows*words] != after {
		t.Fatalf("%d rows of %d: wrote behind the mask", rows, cols)
	}
	for i := range rows {
		for j := range 16 * words {
			if got, want := bit(mask[i*words:], j), j < cols && x.v[i*cols+min(j, cols-1)] > 0; got != want {
				t.Fatalf("%d rows of %d: bit %d of row %d is %v", rows, cols, j, i, got)
			}
		}
	}
}

func TestNamed(t *testing.T) {
	for _, s := range Sets() {
		if got, err := Named(s.Name()); got != s || err != nil {
			t.Errorf("Named(%q) = %v, %v", s.Name(), got, err)
		}
	}
	if _, err := Named("abacus"); err == nil || !strings.Contains(err.Error(), "generic") {
		t.Errorf("Named(abacus) does not say what there is: %v", err)
	}
}

func TestShortOperandPanics(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		x := make([]float32, 15)
		s.Finish(x, 8, x, 8, x, nil, 0, 2, 8)
	})
}

func TestGemm(t *testing.T) {
	everyProduct(t, func(t *testing.T, s *Set) {
		rnd := noise(5)
		element := s.elements(rnd.next)
		for vecs := 1; vecs <= s.MaxVecs(); vecs++ {
			for rows := 1; rows <= s.MaxRows(vecs); rows++ {
				for _, k := range []int{1, 2, 7, 33} {
					for layout := range 32 {
						strip, strips, runs := vecs*s.Lanes(), 1+layout/16*2, 1
						cols := strips * strip
						d := Tiles{Rows: rows, Vecs: vecs, K: k, Count: 1 + layout%3, ARow: k + 1, ACol: 1, BRow: strip + 3, CRow: cols + 5, Accumulate: layout&2 != 0}
						if layout&1 != 0 {
							d.ARow, d.ACol = 1, rows+2
						}
						if layout&8 != 0 {
							d.Runs, d.ARun = 3, 2*layout
							runs = 3
						}
						d.AStep, d.BStep, d.CStep = rows*d.ARow+k*d.ACol, runs*k*d.BRow, rows*d.CRow
						if layout&4 != 0 {
							d.BStep = 0
						}
						if strips > 1 {
							d.Strips, d.BStrip = strips, d.Count*d.BStep+5
						}
						a := newGuarded((d.Count-1)*d.AStep+(rows-1)*d.ARow+(runs-1)*d.ARun+(k-1)*d.ACol+1, element)
						b := newGuarded((strips-1)*d.BStrip+(d.Count-1)*d.BStep+(runs*k-1)*d.BRow+strip, element)
						c := newGuarded((d.Count-1)*d.CStep+(rows-1)*d.CRow+cols, rnd.next)
						old := append([]float32(nil), c.v...)
						s.Gemm(&d, a.v, b.v, c.v)
						for _, g := range []guarded{a, b, c} {
							g.check(t, "Gemm")
						}
						for n := range d.Count {
							for r := range rows {
								for j := range d.CRow {
									at := n*d.CStep + r*d.CRow + j
									if at >= len(old) {
										continue
									}
									want, mag := float64(old[at]), math.Abs(float64(old[at]))
									if j < cols {
										if !d.Accumulate {
											want, mag = 0, 0
										}
										for l := range runs * k {
											s.product(a.v[n*d.AStep+r*d.ARow+l/k*d.ARun+l%k*d.ACol], b.v[j/strip*d.BStrip+n*d.BStep+l*d.BRow+j%strip], func(p float64) {
												want += p
												mag += math.Abs(p)
											})
										}
									}
									if !(math.Abs(float64(c.v[at])-want) <= 1e-6*mag) {
										t.Fatalf("%+v: c[%d] = %v, want %v", d, at, c.v[at], want)
									}
								}
							}
						}
					}
				}
			}
		}
	})
}

// Finishing in registers is what Gemm and the definition of Finishing make, bit for bit.
func TestGemmFinish(t *testing.T) {
	everyProduct(t, func(t *testing.T, s *Set) {
		rnd := noise(6)
		element := s.elements(rnd.next)
		for vecs := 1; vecs <= s.MaxVecs(); vecs++ {
			for rows := 1; rows <= s.MaxRows(vecs); rows++ {
				for form := range 32 {
					strip, strips, k, count := vecs*s.Lanes(), 1+form/16*2, 5, 1+form%3
					cols := strips * strip
					d := Tiles{Rows: rows, Vecs: vecs, K: k, Count: count, ARow: k + 1, ACol: 1, AStep: rows * (k + 1), BRow: strip + 3, CRow: cols + 5,
						CStep: rows * (cols + 5), Accumulate: form&1 != 0, Runs: form % 4, ARun: form}
					if strips > 1 {
						d.Strips, d.BStrip = strips, max(1, d.Runs)*k*d.BRow
					}
					f := Finishing{YRow: cols + 2, Floor: float32(math.Inf(-1))}
					size := (count*rows-1)*f.YRow + cols
					y, extra, bias := newGuarded(size, nan), newGuarded(size, rnd.next), newGuarded(cols, rnd.next)
					f.Bias = bias.v
					if form&2 != 0 {
						f.Extra = extra.v
					}
					if form&4 != 0 {
						f.MaskRow, f.MaskFirst = MaskWords(cols)+2, 16*(form%2)
						f.Mask = newMask((count*rows-1)*f.MaskRow+MaskWords(f.MaskFirst+cols), rnd.next)
					}
					if form&8 != 0 {
						f.Floor = 0
					}
					a, b := newGuarded(count*rows*d.ARow+d.Runs*d.ARun, element), newGuarded(strips*max(1, d.Runs)*k*d.BRow, element)
					c := newGuarded((count*rows-1)*d.CRow+cols, rnd.next)
					products, want := append([]float32(nil), c.v...), make([]float32, size)
					s.Gemm(&d, a.v, b.v, products)
					f.Y = want
					finishGeneric(f, products, d.CRow, count*rows, cols)
					for _, inPlace := range []bool{false, true} {
						f.Y = y.v
						if inPlace && f.Extra != nil {
							f.Y = f.Extra
						}
						s.GemmFinish(&d, a.v, b.v, append([]float32(nil), c.v...), &f)
						for _, g := range []guarded{y, extra, bias, a, b} {
							g.check(t, "GemmFinish")
						}
						for i := range count * rows {
							for j := range cols {
								if at := i*f.YRow + j; f.Y[at] != want[at] {
									t.Fatalf("%d rows, %d vectors, form %d: y[%d,%d] = %v, want %v", rows, vecs, form, i, j, f.Y[at], want[at])
								}
							}
						}
					}
				}
			}
		}
	})
}

func TestFinish(t *testing.T) {
	everySet(t, func(t *testing.T, s *Set) {
		rnd := noise(6)
		for _, cols := range []int{1, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 65} {
			for _, rows := range []int{1, 2, 5} {
				for mode := range 9 {
					yRow, aRow := cols+mode%3, cols+2
					y := newGuarded((rows-1)*yRow+cols, rnd.next)
					a := newGuarded((rows-1)*aRow+cols, rnd.next)
					b := newGuarded(cols, rnd.next)
					extra := newGuarded(len(y.v), rnd.next)
					a.v[len(a.v)/2] = nan()
					floor := float32(math.Inf(-1))
					if mode&1 != 0 {
						floor = 0
					}
					maskRow, first := MaskWords(cols)+1+mode%2, []int{0, 16, 5}[mode%3]
					mask := newMask((rows-1)*maskRow+MaskWords(first+cols), rnd.next)
					old := append([]float32(nil), y.v...)
					want := append([]float32(nil), y.v...)
					for i := range rows {
						for j := range cols {
							v := a.v[i*aRow+j]
							switch {
							case mode == 8:
								v += old[i*yRow+j]
								fallthrough
							case mode >= 6:
								if !bit(mask[i*maskRow:], first+j) {
									v = 0
								}
							case mode >= 4:
								v = max(floor, v+b.v[j]+old[i*yRow+j])
							case mode >= 2:
								v = max(floor, v+b.v[j]+extra.v[i*yRow+j])
							default:
								v = max(floor, v+b.v[j])
							}
							want[i*yRow+j] = v
						}
					}
					switch {
					case mode == 8:
						s.FinishMask(y.v, yRow, a.v, aRow, y.v, mask, maskRow, first, rows, cols)
					case mode >= 6:
						s.FinishMask(y.v, yRow, a.v, aRow, nil, mask, maskRow, first, rows, cols)
					case mode >= 4:
						s.Finish(y.v, yRow, a.v, aRow, b.v, y.v, floor, rows, cols)
					case mode >= 2:
						s.Finish(y.v, yRow, a.v, aRow, b.v, extra.v, floor, rows, cols)
					default:
						s.Finish(y.v, yRow, a.v, aRow, b.v, nil, floor, rows, cols)
					}
					for _, g := range []guarded{a, b, y, extra} {
						g.check(t, "Finish")
					}
					for i := range want {
						if y.v[i] != want[i] && !(y.v[i] != y.v[i] && want[i] != want[i]) {
							t.Fatalf("mode %d, %dx%d: y[%d] = %v, want %v", mode, rows, cols, i, y.v[i], want[i])
						}
					}
				}
			}
		}
	})
}

// BenchmarkGemm is the ceiling of everything built on these tiles: operands in the first-level cache, one core.
func BenchmarkGemm(b *testing.B) {
	for _, s := range append(Sets(), Best().BF16()) {
		for vecs := 1; s != nil && vecs <= 2; vecs++ {
			b.Run(s.Name()+"/"+string(rune('0'+vecs)), func(b *testing.B) {
				const k = 64
				cols := vecs * s.Lanes()
				t := Tiles{Rows: s.MaxRows(vecs), Vecs: vecs, K: k, Count: 8, ARow: k, ACol: 1, BRow: cols, CRow: cols}
				x, y, z := make([]float32, t.Rows*k), make([]float32, k*cols), make([]float32, t.Rows*cols)
				for b.Loop() {
					s.Gemm(&t, x, y, z)
				}
				b.ReportMetric(float64(2*t.Count*t.Rows*cols*k*s.Terms())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
