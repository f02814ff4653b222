package kern

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"
)

// everyExponent is count numbers of each sign and exponent, NaN and the infinities among them: both ends of the binade and
// random ones between.
func everyExponent(count int) []float32 {
	rnd := noise(31)
	var list []float32
	for top := range uint32(1 << 9) {
		list = append(list, math.Float32frombits(top<<23), math.Float32frombits(top<<23|1), math.Float32frombits(top<<23|(1<<23-1)))
		for range count {
			list = append(list, math.Float32frombits(top<<23|math.Float32bits(rnd.next())&(1<<23-1)))
		}
	}
	return list
}

// ulps is how far got is from want in units of the last place of the float32 numbers around want.
func ulps(got float32, want float64) float64 {
	rounded := float32(want)
	if got == rounded || got != got && rounded != rounded {
		return 0
	}
	if math.IsInf(float64(got), 0) || math.IsInf(float64(rounded), 0) || got != got || rounded != rounded {
		return math.Inf(1)
	}
	_, e := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(e-24, -149))
}

// The bounds are those of the comments; over all float32 numbers the worst are 0.966 for exp, 0.807 for log and 1.491 for
// the reciprocal root.
func TestTranscendental(t *testing.T) {
	count := 600
	if testing.Short() {
		count = 60
	}
	samples := everyExponent(count)
	rnd := noise(32)
	for range 300 * count { // where results are neither 0 nor infinite, and near the zero of log
		samples = append(samples, 110*rnd.next(), rnd.next(), 1+rnd.next()/8)
	}
	generic := sets[len(sets)-1]
	everySet(t, func(t *testing.T, s *Set) {
		for name, c := range map[string]struct {
			f     func(s *Set, dst, a []float32)
			exact func(float64) float64
			bound float64
		}{
			"Exp": {(*Set).Exp, math.Exp, 1}, "Log": {(*Set).Log, math.Log, 1},
			"Sqrt": {(*Set).Sqrt, math.Sqrt, 0.5}, "Rsqrt": {(*Set).Rsqrt, func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.5},
			"Floor": {(*Set).Floor, math.Floor, 0}, "Ceil": {(*Set).Ceil, math.Ceil, 0}, "Round": {(*Set).Round, math.RoundToEven, 0},
		} {
			got, want := make([]float32, len(samples)), make([]float32, len(samples))
			c.f(s, got, samples)
			c.f(generic, want, samples)
			worst, at := 0.0, float32(0)
			for i, x := range samples {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
					t.Fatalf("%s(%v) = %v, pure Go gives %v", name, x, got[i], want[i])
				}
				if u := ulps(got[i], c.exact(float64(x))); u > worst {
					worst, at = u, x
				}
			}
			if worst > c.bound {
				t.Errorf("%s(%v) is %.3f units in the last place off, at most %g are allowed", name, at, worst, c.bound)
			}
		}
	})
}

// The bits of exp and log are the same on every processor.
func TestTranscendentalBits(t *testing.T) {
	samples := everyExponent(200)
	got := make([]float32, len(samples))
	for _, c := range []struct {
		name string
		f    func(s *Set, dst, a []float32)
		want uint32
	}{{"Exp", (*Set).Exp, 0x272bed6b}, {"Log", (*Set).Log, 0x0fe2cce0}} {
		c.f(Best(), got, samples)
		hash := crc32.NewIEEE()
		for _, v := range got {
			if v == v { // the bits of NaN are the processor's
				hash.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
			}
		}
		if hash.Sum32() != c.want {
			t.Errorf("%s: the results' checksum is %08x, want %08x", c.name, hash.Sum32(), c.want)
		}
	}
}

func TestTranscendentalLimits(t *testing.T) {
	inf := float32(math.Inf(1))
	everySet(t, func(t *testing.T, s *Set) {
		for _, c := range []struct {
			name    string
			f       func(s *Set, dst, a []float32)
			x, want float32
		}{
			{"Exp", (*Set).Exp, 0, 1}, {"Exp", (*Set).Exp, -1e-45, 1}, {"Exp", (*Set).Exp, inf, inf}, {"Exp", (*Set).Exp, -inf, 0}, {"Exp", (*Set).Exp, nan(), nan()},
			{"Exp", (*Set).Exp, 88.72283, 3.4027985e38}, {"Exp", (*Set).Exp, 88.72284, inf}, {"Exp", (*Set).Exp, 3e38, inf},
			{"Exp", (*Set).Exp, -103.97207, 1e-45}, {"Exp", (*Set).Exp, -103.97209, 0}, {"Exp", (*Set).Exp, -3e38, 0},
			{"Log", (*Set).Log, 1, 0}, {"Log", (*Set).Log, 0, -inf}, {"Log", (*Set).Log, float32(math.Copysign(0, -1)), -inf}, {"Log", (*Set).Log, inf, inf},
			{"Log", (*Set).Log, -1e-45, nan()}, {"Log", (*Set).Log, -inf, nan()}, {"Log", (*Set).Log, nan(), nan()}, {"Log", (*Set).Log, 1e-45, -103.27893},
			{"Log", (*Set).Log, math.MaxFloat32, 88.72284}, {"Rsqrt", (*Set).Rsqrt, 0, inf}, {"Rsqrt", (*Set).Rsqrt, inf, 0}, {"Rsqrt", (*Set).Rsqrt, -1, nan()},
		} {
			var got [1]float32
			c.f(s, got[:], []float32{c.x})
			if got[0] != c.want && (got[0] == got[0] || c.want == c.want) {
				t.Errorf("%s(%v) = %v, want %v", c.name, c.x, got[0], c.want)
			}
		}
	})
}

// BenchmarkTranscendental is in the first-level cache.
func BenchmarkTranscendental(b *testing.B) {
	for _, s := range Sets() {
		x, y := make([]float32, 2048), make([]float32, 2048)
		for i := range x {
			x[i] = 1 + float32(i)/512
		}
		for name, f := range map[string]func(){"exp": func() { s.Exp(y, x) }, "log": func() { s.Log(y, x) }} {
			b.Run(s.Name()+"/"+name, func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(2048*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelement/s")
			})
		}
	}
}
