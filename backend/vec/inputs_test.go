package vec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// FuzzInputs gives a program inputs of all kinds of wrong counts, shapes, types and states: it runs where they are right, and
// otherwise says what is wrong with which parameter and leaves every buffer as it was.
func FuzzInputs(f *testing.F) {
	for seed := range byte(64) {
		f.Add([]byte{3, seed % 9, seed / 3 % 9, seed / 7 % 9, seed % 5})
	}
	f.Add([]byte{2, 0, 0})
	f.Add([]byte{4, 0, 0, 0, 0})
	f.Add([]byte{})
	b, other := newBackend(f, "threads=1"), newBackend(f, "threads=1")
	builder := b.Builder("inputs")
	main := builder.Main()
	names := []string{"image", "label", "mask"}
	params := []shapes.Shape{shapes.Make(dtypes.Float32, 2, 3), shapes.Make(dtypes.Int32, 2), shapes.Make(dtypes.Bool, 2, 3)}
	var in []compute.Value
	for i, name := range names {
		v, err := main.Parameter(name, params[i], nil)
		if err != nil {
			f.Fatal(err)
		}
		in = append(in, v)
	}
	sum, err := main.Add(in[0], in[0])
	if err == nil {
		sum, err = main.Where(in[2], sum, in[0])
	}
	if err == nil {
		err = main.Return([]compute.Value{sum, in[1]}, nil)
	}
	if err != nil {
		f.Fatal(err)
	}
	exec, err := builder.Compile()
	if err != nil {
		f.Fatal(err)
	}
	buffer := func(t *testing.T, b *Backend, s shapes.Shape) compute.Buffer {
		buf, _, err := b.NewSharedBuffer(0, s)
		if err != nil {
			t.Fatal(err)
		}
		return buf
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() int {
			if len(data) == 0 {
				return 0
			}
			v := data[0]
			data = data[1:]
			return int(v)
		}
		count := next() % 6
		wants := []string{fmt.Sprintf("takes 3 inputs, %d given", count)}
		fine := count == len(params)
		var inputs []compute.Buffer
		for i := range count {
			s := params[i%len(params)].Clone()
			var buf compute.Buffer
			var complaint string // what the error says
			switch kind := next() % 9; kind {
			case 1: // none
				complaint = "expected a buffer of this backend"
			case 2:
				buf, complaint = (*Buffer)(nil), "expected a buffer of this backend"
			case 3:
				buf, complaint = buffer(t, other, s), "another instance"
			case 4, 5: // another type
				s.DType = []dtypes.DType{dtypes.Float64, dtypes.Uint8}[kind-4]
				buf, complaint = buffer(t, b, s), s.String()
			case 6: // another length, or none
				s.Dimensions[next()%s.Rank()] += 1 + next()%5
				buf, complaint = buffer(t, b, s), s.String()
			case 7: // another rank
				s.Dimensions = append(s.Dimensions, 1)
				buf, complaint = buffer(t, b, s), s.String()
			case 8:
				buf, complaint = buffer(t, b, s), "finalized or donated"
				if err := buf.Finalize(); err != nil {
					t.Fatal(err)
				}
			default:
				buf = buffer(t, b, s)
			}
			if complaint != "" && fine {
				fine = false
				wants = []string{fmt.Sprintf("parameter %q (input %d)", names[i], i), complaint}
			}
			inputs = append(inputs, buf)
		}
		var donate []bool
		switch next() % 5 {
		case 1, 2:
			for range inputs {
				donate = append(donate, next()%2 == 1)
			}
		case 3:
			donate = make([]bool, 1+len(inputs))
			if count == len(params) {
				fine, wants = false, []string{"donate has length 4", "each of the 3 inputs"}
			}
		}
		live := func() (list []bool) {
			for _, buf := range inputs {
				b, ok := buf.(*Buffer)
				list = append(list, ok && b != nil && b.mem != nil)
			}
			return list
		}
		before := live()
		outs, err := exec.Execute(inputs, donate, 0)
		if fine {
			if err != nil {
				t.Fatalf("inputs as expected: %v", err)
			}
			for i, alive := range live() {
				if donated := len(donate) > 0 && donate[i]; alive == donated {
					t.Errorf("parameter %q: donated %v, lives afterwards %v", names[i], donated, alive)
				}
			}
			if len(outs) != 2 || !outs[0].(*Buffer).shape.Equal(params[0]) {
				t.Errorf("outputs %v", outs)
			}
			return
		}
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
		if after := live(); !slices.Equal(before, after) {
			t.Errorf("an execution that was refused took buffers: alive %v, before %v", after, before)
		}
	})
}
