package mesh

import (
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/internal/several"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func open(t *testing.T, devices int) (one compute.Backend, mesh *Backend) {
	t.Helper()
	one, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	if mesh, err = New(several.New(one, devices), devices); err != nil {
		t.Fatal(err)
	}
	return one, mesh
}

func ramp(dims ...int) *tensors.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	flat := make([]float32, n)
	for i := range flat {
		flat[i] = float32(i%7) - 2.5
	}
	return tensors.FromFlatDataAndDimensions(flat, dims...)
}

// step is a linear layer with a batch norm of sorts: x, w -> the sum over the batch that w's gradient is, logits.
func step(in []*Node) []*Node {
	x, w := in[0], in[1]
	h := Dot(x, w).MatMul()
	h = Sub(h, ExpandDims(ReduceMean(h, 0), 0))
	return []*Node{Gradient(ReduceAllSum(Square(h)), w)[0], h}
}

func call(t *testing.T, b compute.Backend, in, out share.Batches, args ...any) []*tensors.Tensor {
	t.Helper()
	e, err := NewExec(b, step)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Finalize)
	share.Exec(e, b, in, out)
	results, err := e.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func flat(t *testing.T, x *tensors.Tensor) []float32 {
	t.Helper()
	v, err := tensors.CopyFlatData[float32](x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A program gives on several devices what it gives on one, shared out or not, whichever way its inputs came to lie.
func TestProgramOnSeveralDevices(t *testing.T) {
	var no share.Batches
	for _, c := range []struct {
		name          string
		devices, size int
		in, out       share.Batches
		parts         []int // the rows of the logits on each device
	}{
		{"shared out", 4, 8, no.Batch(1).Then(1), no.Then(1).Batch(1), []int{2, 2, 2, 2}},
		{"gathered", 2, 8, no.Batch(1).Then(1), no.Then(2), []int{8, 8}},
		{"not said", 2, 8, no.Then(2), no.Then(2), []int{8, 8}},
		{"not to be shared out equally", 4, 6, no.Batch(1).Then(1), no.Then(1).Batch(1), []int{6, 6, 6, 6}},
		{"one device", 1, 8, no.Batch(1).Then(1), no.Then(1).Batch(1), []int{8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			one, mesh := open(t, c.devices)
			want := call(t, one, nil, nil, ramp(c.size, 3), ramp(3, 2))
			got := call(t, mesh, c.in, c.out, ramp(c.size, 3), ramp(3, 2))
			for i := range want {
				if w, g := flat(t, want[i]), flat(t, got[i]); !slices.Equal(w, g) {
					t.Errorf("output %d is %v, expected %v", i, g, w)
				}
			}
			// The results go on into another program, the one that lies in parts as a whole too.
			again := call(t, mesh, c.in, c.out, got[1], ramp(2, 3))
			want = call(t, one, nil, nil, want[1], ramp(2, 3))
			if w, g := flat(t, want[1]), flat(t, again[1]); !slices.Equal(w, g) {
				t.Errorf("the next program gives %v, expected %v", g, w)
			}
			whole := call(t, mesh, no.Then(2), no.Then(2), got[1], ramp(2, 3))
			if w, g := flat(t, want[1]), flat(t, whole[1]); !slices.Equal(w, g) {
				t.Errorf("what lay in parts gives %v as a whole, expected %v", g, w)
			}
		})
	}
}

// How a batch lies is seen on the devices, not only in what comes of it.
func TestPartsOfABatch(t *testing.T) {
	_, mesh := open(t, 4)
	x := ramp(8, 3)
	made, err := mesh.BufferFromFlatData(0, flat(t, x), x.Shape())
	if err != nil {
		t.Fatal(err)
	}
	b := made.(*buffer)
	parts, err := b.as(rows)
	if err != nil {
		t.Fatal(err)
	}
	for d, p := range parts {
		if device, _ := p.DeviceNum(); device != compute.DeviceNum(d) {
			t.Errorf("part %d is on device %d", d, device)
		}
		v := make([]float32, 6)
		if err := p.ToFlatData(v); err != nil || !slices.Equal(v, flat(t, x)[6*d:6*d+6]) {
			t.Errorf("part %d is %v (%v)", d, v, err)
		}
	}
	if again, err := b.as(rows); err != nil || !slices.Equal(again, parts) {
		t.Errorf("what lies right was laid out again (%v)", err)
	}
	if err := b.Finalize(); err != nil {
		t.Fatal(err)
	}
	if err := b.ToFlatData(make([]float32, 24)); err == nil {
		t.Error("a freed buffer was read")
	}
}

// A buffer that was given away is not used again.
func TestDonated(t *testing.T) {
	_, mesh := open(t, 2)
	e, err := NewExec(mesh, func(in []*Node) []*Node { return []*Node{AddScalar(in[0], 1)} })
	if err != nil {
		t.Fatal(err)
	}
	x := ramp(4, 3)
	if err := x.ToDevice(mesh, 0); err != nil {
		t.Fatal(err)
	}
	given, err := DonateTensorBuffer(x, mesh, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Call(given)
	if err != nil {
		t.Fatal(err)
	}
	if got := flat(t, out[0])[0]; got != -1.5 {
		t.Errorf("%g, expected -1.5", got)
	}
	if _, err := e.Call(given); err == nil {
		t.Error("what was given away was taken again")
	}
}

func TestDevicesThatAreNotThere(t *testing.T) {
	one, _ := open(t, 1)
	for _, n := range []int{-1, 0, 2} {
		if _, err := New(one, n); err == nil || !strings.Contains(err.Error(), "has 1") {
			t.Errorf("%d devices of one: %v", n, err)
		}
	}
	if share.Devices(one) != 1 || share.Rows(one) != nil {
		t.Error("a backend of one device shares batches out")
	}
}
