package speed

import (
	"math"
	"testing"
	"time"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/zoo"
)

func TestFLOPs(t *testing.T) {
	for _, c := range []struct {
		kernel Kernel
		want   float64
	}{
		{Kernel{M: 2, N: 3, K: 5}, 60},
		{Kernel{N: 2, Size: 8, Cin: 3, Cout: 4, Kernel: 3, Stride: 1}, 2 * 2 * 64 * 4 * 9 * 3},
		{Kernel{N: 2, Size: 7, Cin: 3, Cout: 4, Kernel: 3, Stride: 2}, 2 * 2 * 16 * 4 * 9 * 3},
		{Kernel{N: 1, Size: 8, Cin: 6, Cout: 6, Kernel: 3, Stride: 1, Depthwise: true}, 2 * 64 * 6 * 9},
	} {
		if got := c.kernel.FLOPs(); got != c.want {
			t.Errorf("%+v: %v operations, want %v", c.kernel, got, c.want)
		}
	}
}

func TestMeasure(t *testing.T) {
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	for _, k := range []Kernel{
		{M: 3, N: 4, K: 5},
		{N: 2, Size: 6, Cin: 3, Cout: 4, Kernel: 3, Stride: 2, Direction: Forward},
		{N: 2, Size: 6, Cin: 3, Cout: 4, Kernel: 3, Stride: 2, Direction: ByInput},
		{N: 2, Size: 6, Cin: 4, Cout: 4, Kernel: 3, Stride: 1, Depthwise: true, Direction: ByKernel},
	} {
		if took, err := k.Measure(backend, time.Millisecond); err != nil || took <= 0 {
			t.Errorf("%+v: %v, %v", k, took, err)
		}
	}
}

// The work is done, and again with the same result where it changes nothing.
func TestWork(t *testing.T) {
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	net, err := zoo.New("resnet8-w4", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	model, images := zoo.Init(net, 1), RandomImages(4)
	for name, prepare := range map[string]func() (Work, error){
		"AdaAD":  func() (Work, error) { return AdaAD(backend, model, zoo.Init(net, 2), images, 2) },
		"PGD":    func() (Work, error) { return PGD(backend, model, images, 2) },
		"logits": func() (Work, error) { return Logits(backend, model, images) },
	} {
		work, err := prepare()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first, err := work()
		if err != nil || !(first > 0) || math.IsInf(first, 0) {
			t.Errorf("%s: %v, %v", name, first, err)
		}
		if again, err := work(); err != nil || name != "AdaAD" && again != first {
			t.Errorf("%s: %v, then %v (%v)", name, first, again, err)
		}
	}
}
