package data

import (
	"bytes"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

func TestShapesAreKeyed(t *testing.T) {
	s := Shapes(1, Train, 50)
	if s.Len() != 50 || s.Height != 32 || s.Width != 32 || s.Channels != 3 || len(s.Classes) != 10 || !slices.Equal(s.Index, count(50)) {
		t.Fatalf("%d images of %dx%dx%d, %d classes", s.Len(), s.Height, s.Width, s.Channels, len(s.Classes))
	}
	if got := perClass(s); slices.Min(got) != 5 || slices.Max(got) != 5 {
		t.Errorf("%v images of each class, want 5", got)
	}
	if fewer := Shapes(1, Train, 23); !bytes.Equal(fewer.Pixels, s.Pixels[:len(fewer.Pixels)]) {
		t.Error("a smaller set is not the beginning of a larger one")
	}
	alone := func() []uint8 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		return Shapes(1, Train, 50).Pixels
	}()
	if !bytes.Equal(alone, s.Pixels) {
		t.Error("the images depend on the number of processors")
	}
	for name, other := range map[string]*Set{"splits": Shapes(1, Test, 50), "seeds": Shapes(2, Train, 50)} {
		for i := range 50 {
			if bytes.Equal(other.Image(i), s.Image(i)) {
				t.Errorf("two %s have the same image %d", name, i)
			}
		}
	}
	if none := Shapes(1, Train, 0); none.Len() != 0 {
		t.Errorf("%d images where none was asked for", none.Len())
	}
}

// The pictures are part of what a result on this set means: a change here changes every number reported on it.
func TestShapesArePinned(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("other processors may round differently")
	}
	h := fnv.New64a()
	for _, split := range []Split{Train, Test} {
		s, err := Open("shapes", "", split, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[Split]int{Train: 10000, Test: 2000}[split]; s.Len() != want {
			t.Errorf("%d %s images, want %d", s.Len(), split, want)
		}
		h.Write(s.Pixels)
	}
	if got, want := h.Sum64(), uint64(0x13a0ef4ff8706011); got != want {
		t.Errorf("the pictures' FNV-1a hash is %#x, want %#x", got, want)
	}
}

// drawShape takes samples only within a pixel of the outline, and nothing beyond 1.5 radii: distances must not be
// overestimated, and shapes not be larger.
func TestShapeDistances(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range shapes {
		inside := 0
		for range 20000 {
			x, y := between(r, -2, 2), between(r, -2, 2)
			u, v := between(r, -0.3, 0.3), between(r, -0.3, 0.3)
			d := s.distance(x, y)
			if got, most := math.Abs(s.distance(x+u, y+v)-d), math.Hypot(u, v); got > most+1e-9 {
				t.Fatalf("%s: the distance changes by %v over %v, from (%.3f, %.3f)", s.name, got, most, x, y)
			}
			if d < 0 {
				inside++
				if math.Hypot(x, y) > 1.5 {
					t.Fatalf("%s: (%.3f, %.3f) is inside", s.name, x, y)
				}
			}
		}
		if area := 16 * float64(inside) / 20000; area < 0.8 || area > math.Pi {
			t.Errorf("%s has area %.2f", s.name, area)
		}
	}
}

// The areas that the outlines enclose, against their closed forms.
func TestShapeAreas(t *testing.T) {
	area := func(f func(x, y float64) float64) float64 {
		const n = 600
		inside := 0
		for i := range n * n {
			if f(3*(float64(i%n)+0.5)/n-1.5, 3*(float64(i/n)+0.5)/n-1.5) < 0 {
				inside++
			}
		}
		return 9 * float64(inside) / (n * n)
	}
	const side = 0.52
	for _, c := range []struct {
		name string
		f    func(x, y float64) float64
		want float64
	}{
		{"disc", disc, math.Pi * 0.81},
		{"ring", ring, math.Pi * (0.96*0.96 - 0.48*0.48)},
		{"square", square, 4 * 0.76 * 0.76},
		{"triangle", triangle, 3 * math.Sqrt(3) * 0.55 * 0.55},
		{"star", star, 5 * 1.1 * 0.45 * math.Sin(math.Pi/5)},
		{"cross", cross, 2*4*0.27 - 4*0.27*0.27},
		{"heart", heart, 4*side*side + math.Pi*side*side},
		{"bowl", bowl, math.Pi * 1.05 * 1.05 / 2},
		{"checker", checker, 5 * 4 * 0.3 * 0.3},
	} {
		if got := area(c.f); math.Abs(got-c.want) > 0.01*c.want {
			t.Errorf("%s has area %.4f, want %.4f", c.name, got, c.want)
		}
	}
}

// Both cues are there: the ripple alone tells the class, although no pixel changes by more than 8/255 with it.
func TestShapesHaveARipple(t *testing.T) {
	if cueHeight >= 8.0/255 {
		t.Fatal("the ripple is higher than the attacks it is to fall to")
	}
	s := Shapes(ShapesSeed, Test, 300)
	right := 0
	for i := range s.Len() {
		best, most := -1, 0.0
		for class, c := range shapes {
			if p := power(s.Image(i), c.ripple); p > most {
				best, most = class, p
			}
		}
		if best == s.Labels[i] {
			right++
		}
	}
	if right < 285 {
		t.Errorf("the strongest ripple is the class's own in %d of 300 images, want 285", right)
	}
}

// power is the image's energy in waves (a, b) across and down it, all phases and channels together.
func power(image []uint8, waves [2]float64) (p float64) {
	for _, phase := range [][2]float64{{0, 0}, {0, 1}, {1, 0}, {1, 1}} {
		sum := 0.0
		for k := range 32 * 32 {
			v := float64(image[3*k]) + float64(image[3*k+1]) + float64(image[3*k+2])
			sum += v * math.Cos(waves[0]*2*math.Pi*float64(k%32)/32+phase[0]*math.Pi/2) *
				math.Cos(waves[1]*2*math.Pi*float64(k/32)/32+phase[1]*math.Pi/2)
		}
		p += sum * sum
	}
	return p
}

func BenchmarkShapes(b *testing.B) {
	for b.Loop() {
		Shapes(ShapesSeed, Train, 1000)
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "images/s")
}
