package vec

import (
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/adaad-go/adaad/internal/rng"
)

// Multiplying and dividing by one takes no instruction, dividing one by something does.
func TestOnesChangeNothing(t *testing.T) {
	r := rng.New(1, "vec test")
	x := randomInput(r, 3, 5)
	reference, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	one := func(n *graph.Node) *graph.Node { return graph.Ones(n.Graph(), n.Shape()) }
	for name, c := range map[string]struct {
		f            func(x *graph.Node) *graph.Node
		instructions int
	}{
		"x·1": {func(x *graph.Node) *graph.Node { return graph.Mul(x, one(x)) }, 0},
		"1·x": {func(x *graph.Node) *graph.Node { return graph.Mul(one(x), x) }, 0},
		"x/1": {func(x *graph.Node) *graph.Node { return graph.Div(x, one(x)) }, 0},
		"1/x": {func(x *graph.Node) *graph.Node { return graph.Div(one(x), x) }, 1},
		"x+1": {func(x *graph.Node) *graph.Node { return graph.Add(x, one(x)) }, 1},
	} {
		b := newBackend(t, "threads=1")
		count := 0
		b.observe = func(*instruction, time.Duration) { count++ }
		e := &example{name: name, inputs: []*input{x}, build: func(in []*graph.Node) []*graph.Node { return []*graph.Node{c.f(in[0])} }}
		got := e.execute(t, b, dtypes.Float32)
		if count != c.instructions {
			t.Errorf("%s takes %d instructions, expected %d", name, count, c.instructions)
		}
		compare(t, name, got, e.execute(t, reference, dtypes.Float64), 1e-6)
	}
}
