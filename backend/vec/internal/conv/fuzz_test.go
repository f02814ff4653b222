package conv

import (
	"fmt"
	"math"
	"testing"

	"github.com/adaad-go/adaad/internal/kern"
)

// sizes reads numbers from a fuzzer's bytes; where there are none left, the smallest.
type sizes []byte

func (d *sizes) in(lo, hi int) int {
	if len(*d) == 0 {
		return lo
	}
	v := int((*d)[0])
	*d = (*d)[1:]
	return lo + v%(hi-lo+1)
}

// FuzzConvolution compares the three directions of a convolution that the fuzzer's bytes choose with the definition in
// float64, on every set, with every epilogue, with one and with more workers.
func FuzzConvolution(f *testing.F) {
	rnd := noise(77)
	for range 24 {
		var seed []byte
		for range 20 {
			seed = append(seed, byte(math.Float32bits(rnd.next())>>9))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := sizes(data)
		kind := d.in(0, 7)
		s := Shape{KH: d.in(1, 5), KW: d.in(1, 5), StrideH: d.in(1, 3), StrideW: d.in(1, 3), DilH: d.in(1, 3), DilW: d.in(1, 3),
			N: d.in(1, 3), H: d.in(0, 13), W: d.in(0, 13),
			PadTop: d.in(-2, 4), PadBottom: d.in(-2, 4), PadLeft: d.in(-2, 4), PadRight: d.in(-2, 4), Groups: 1}
		switch kind {
		case 0: // few channels
			s.Cin, s.Cout = d.in(1, 4), d.in(1, 40)
		case 1: // depthwise
			s.Cin = d.in(1, 70)
			s.Cout, s.Groups = s.Cin, s.Cin
		case 2:
			s.Groups = d.in(2, 4)
			s.Cin, s.Cout = s.Groups*d.in(1, 12), s.Groups*d.in(1, 20)
		case 3, 4: // Winograd
			s.KH, s.KW, s.StrideH, s.StrideW, s.DilH, s.DilW = 3, 3, 1, 1, 1, 1
			s.Cin, s.Cout = d.in(1, 70), d.in(1, 70)
		case 5: // and so many weights that both directions read one packing of them
			s.KH, s.KW, s.StrideH, s.StrideW, s.DilH, s.DilW = 3, 3, 1, 1, 1, 1
			s.N, s.H, s.W = d.in(1, 2), d.in(1, 5), d.in(1, 5)
			s.Cin, s.Cout = 32*d.in(4, 8), 32*d.in(4, 8)
		case 6: // Winograd on phases
			s = square(d.in(1, 3), 2*d.in(1, 13), 8*d.in(1, 9), 8*d.in(1, 9), 3, 2)
			s.W = 2 * d.in(1, 13)
		default:
			s.Cin, s.Cout = d.in(1, 70), d.in(1, 40)
		}
		layout := d.in(0, 2)
		for _, set := range kern.Sets() {
			t.Logf("%s on %s, weights in layout %d", s, set.Name(), layout)
			testShape(t, s, set, layouts(s)[layout])
		}
	})
}

// FuzzGemm compares products of matrices of any strides with the definition.
func FuzzGemm(f *testing.F) {
	for seed := range byte(16) {
		f.Add([]byte{seed * 13, seed, seed * 29, seed * 3, seed * 51, seed % 4})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := sizes(data)
		m, n, k := d.in(0, 60)*d.in(1, 3), d.in(0, 60)*d.in(1, 10), d.in(0, 70)*d.in(1, 16)
		aRow, aCol, bRow, bCol := k+d.in(0, 3), 1, n+d.in(0, 3), 1
		if d.in(0, 1) == 1 {
			aRow, aCol = 1, m+d.in(0, 3)
		}
		if d.in(0, 1) == 1 {
			bRow, bCol = 1, k+d.in(0, 3)
		}
		rnd := noise(5)
		reach := func(rows, row, cols, col int) int {
			if rows == 0 || cols == 0 {
				return 0
			}
			return (rows-1)*row + (cols-1)*col + 1
		}
		a, b := newGuarded(reach(m, aRow, k, aCol), rnd.next), newGuarded(reach(k, bRow, n, bCol), rnd.next)
		want, magnitude := make([]float64, m*n), make([]float64, m*n)
		for i := range m {
			for l := range k {
				for j := range n {
					p := float64(a.v[i*aRow+l*aCol]) * float64(b.v[l*bRow+j*bCol])
					want[i*n+j] += p
					magnitude[i*n+j] += math.Abs(p)
				}
			}
		}
		for _, set := range kern.Sets() {
			what := fmt.Sprintf("a product of [%d,%d] and [%d,%d] on %s", m, k, k, n, set.Name())
			c, again := newGuarded(m*n, nan), newGuarded(m*n, nan)
			Gemm(goroutines(1), set, m, n, k, Matrix{a.v, aRow, aCol}, Matrix{b.v, bRow, bCol}, c.v)
			Gemm(goroutines(3), set, m, n, k, Matrix{a.v, aRow, aCol}, Matrix{b.v, bRow, bCol}, again.v)
			compare(t, what, c.v, want, magnitude, directTolerance)
			identical(t, what, c.v, again.v)
			for _, g := range []guarded{a, b, c, again} {
				g.check(t, what)
			}
		}
	})
}
