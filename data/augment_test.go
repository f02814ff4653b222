package data

import (
	"bytes"
	"math"
	"slices"
	"testing"
)

// cropAndFlip is what Augmentation computes, one pixel at a time.
func cropAndFlip(src []uint8, h, w, c, dy, dx int, flip bool) []uint8 {
	dst := make([]uint8, len(src))
	for y := range h {
		for x := range w {
			sy, sx := y+dy, x+dx
			if flip {
				sx = w - 1 - x + dx
			}
			if sy >= 0 && sy < h && sx >= 0 && sx < w {
				copy(dst[(y*w+x)*c:][:c], src[(sy*w+sx)*c:][:c])
			}
		}
	}
	return dst
}

func TestCropAndMirror(t *testing.T) {
	for _, shape := range [][3]int{{1, 1, 1}, {4, 3, 1}, {3, 4, 3}, {2, 5, 2}} {
		h, w, c := shape[0], shape[1], shape[2]
		src := make([]uint8, h*w*c)
		for i := range src {
			src[i] = uint8(i + 1)
		}
		for dy := -6; dy <= 6; dy++ {
			for dx := -6; dx <= 6; dx++ {
				got := bytes.Repeat([]byte{99}, len(src))
				crop(got, src, h, w, c, dy, dx)
				if want := cropAndFlip(src, h, w, c, dy, dx, false); !bytes.Equal(got, want) {
					t.Fatalf("%v moved by (%d, %d): %v, want %v", shape, dy, dx, got, want)
				}
				mirror(got, w, c)
				if want := cropAndFlip(src, h, w, c, dy, dx, true); !bytes.Equal(got, want) {
					t.Fatalf("%v moved by (%d, %d), mirrored: %v, want %v", shape, dy, dx, got, want)
				}
			}
		}
	}
}

// Every place of the window, and both directions, are equally frequent: 18 cells of 1,000 expected draws each, whose
// chi-squared has 17 degrees of freedom and exceeds 40.8 once in a thousand seeds.
func TestAugmentationIsUniform(t *testing.T) {
	s := &Set{Height: 3, Width: 3, Channels: 1, Pixels: []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9}, Labels: []int{0}, Index: []int{5}}
	a := Augmentation{Pad: 1, Flip: true}
	want := map[string]int{}
	for dy := -1; dy <= 1; dy++ {
		for dx := -1; dx <= 1; dx++ {
			for _, flip := range []bool{false, true} {
				want[string(cropAndFlip(s.Pixels, 3, 3, 1, dy, dx, flip))] = 0
			}
		}
	}
	if len(want) != 18 {
		t.Fatalf("%d outcomes can be told apart, want 18", len(want))
	}
	const draws = 18000
	dst := make([]uint8, 9)
	for epoch := range draws {
		a.Image(dst, s, 0, epoch, 1)
		if _, known := want[string(dst)]; !known {
			t.Fatalf("epoch %d shows %v, which is no crop", epoch, dst)
		}
		want[string(dst)]++
	}
	chi2 := 0.0
	for _, n := range want {
		d := float64(n) - draws/18
		chi2 += d * d / (draws / 18)
	}
	if chi2 > 40.8 {
		t.Errorf("chi-squared %.1f over 17 degrees of freedom", chi2)
	}
}

func TestBatchIsTheSameHoweverItIsMade(t *testing.T) {
	s := Shapes(3, Train, 40)
	a := Augmentation{Pad: 4, Flip: true}
	size := s.ImageSize()
	rows := Order(s.Len(), 9, 2)
	all, labels := make([]float32, 40*size), make([]int32, 40)
	a.Batch(all, labels, s, rows, 2, 9)

	sub := s.Subset(20, 1)
	x, y := make([]float32, size), make([]int32, 1)
	for i := range sub.Len() {
		a.Batch(x, y, sub, []int{i}, 2, 9)
		k := slices.Index(rows, sub.Index[i])
		if !slices.Equal(x, all[k*size:(k+1)*size]) || y[0] != labels[k] {
			t.Fatalf("image %d differs alone in a subset", sub.Index[i])
		}
	}
	other := make([]float32, 40*size)
	if a.Batch(other, labels, s, rows, 3, 9); slices.Equal(all, other) {
		t.Error("two epochs show the same crops")
	}
	if a.Batch(other, labels, s, rows, 2, 8); slices.Equal(all, other) {
		t.Error("two seeds show the same crops")
	}

	plain := make([]float32, 40*size)
	s.Batch(plain, labels, rows)
	if (Augmentation{}).Batch(other, labels, s, rows, 2, 9); !slices.Equal(plain, other) {
		t.Error("no augmentation changes images")
	}
	for k, i := range rows {
		if labels[k] != int32(s.Labels[i]) {
			t.Fatalf("row %d has label %d, want %d", k, labels[k], s.Labels[i])
		}
		for c, v := range s.Image(i) {
			if plain[k*size+c] != float32(v)/255 {
				t.Fatalf("row %d, byte %d: %v, want %d/255", k, c, plain[k*size+c], v)
			}
		}
	}
}

func TestFloats(t *testing.T) {
	dst := make([]float32, 256)
	Floats(dst, slices.Collect(func(yield func(uint8) bool) {
		for v := range 256 {
			if !yield(uint8(v)) {
				return
			}
		}
	}))
	for v, f := range dst {
		if back := math.Round(float64(f) * 255); back != float64(v) || f != float32(v)/255 {
			t.Errorf("%d becomes %v", v, f)
		}
	}
}

func TestOrder(t *testing.T) {
	order := Order(100, 1, 2)
	if !slices.Equal(slices.Sorted(slices.Values(order)), count(100)) {
		t.Error("not a permutation")
	}
	if !slices.Equal(order, Order(100, 1, 2)) {
		t.Error("the same key gave two orders")
	}
	if slices.Equal(order, Order(100, 1, 3)) || slices.Equal(order, Order(100, 2, 2)) {
		t.Error("two keys gave the same order")
	}
}

func BenchmarkAugmentedBatch(b *testing.B) {
	s := Shapes(1, Train, 128)
	x, y := make([]float32, 128*s.ImageSize()), make([]int32, 128)
	rows := Order(128, 1, 0)
	b.SetBytes(int64(len(s.Pixels)))
	for b.Loop() {
		Augmentation{Pad: 4, Flip: true}.Batch(x, y, s, rows, 0, 1)
	}
}
