package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/zoo"
)

// asker runs a network's logits with and without bases, in batches of a size.
type asker struct {
	plain, based *graph.Graph
	backend      *Backend
	dims         []int
	state        []any
}

func newAsker(t testing.TB, b *Backend, net classifier.Network, images int) *asker {
	t.Helper()
	h, w, c := net.Input()
	r := &asker{dims: []int{images, h, w, c}}
	state := zoo.Init(net, 1).State
	build := func(based bool) *graph.Graph {
		g := graph.NewGraph(b, "logits")
		x := graph.Parameter(g, "images", shapes.Make(dtypes.Float32, r.dims...))
		if based {
			graph.Parameter(g, Base, shapes.Make(dtypes.Float32, r.dims...))
		}
		var params []*graph.Node
		for i, p := range state {
			params = append(params, graph.Parameter(g, fmt.Sprint("state ", i), p.Shape()))
		}
		if err := g.Compile(classifier.Bind(net, params).Logits(x, classifier.Eval)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Finalize)
		return g
	}
	for _, p := range state {
		r.state = append(r.state, p)
	}
	r.backend = b
	r.load(t)
	r.plain, r.based = build(false), build(true)
	return r
}

// load brings the parameters to the backend, in memory that nobody else can write.
func (r *asker) load(t testing.TB) {
	t.Helper()
	for _, p := range r.state {
		p := p.(*tensors.Tensor)
		if err := p.MaterializeOnDevice(r.backend, false, 0); err != nil {
			t.Fatal(err)
		}
		p.FinalizeLocal()
	}
}

// run returns the logits of images, as changes of their bases if there are any.
func (r *asker) run(t testing.TB, pixels, bases []float32) []float32 {
	t.Helper()
	g, args := r.plain, []any{tensors.FromFlatDataAndDimensions(slices.Clone(pixels), r.dims...)}
	if bases != nil {
		g, args = r.based, append(args, tensors.FromFlatDataAndDimensions(slices.Clone(bases), r.dims...))
	}
	return tensors.MustCopyFlatData[float32](g.Run(append(args, r.state...)...)[0])
}

// redraw draws the pixels of a window of an image anew.
func redraw(r *rand.Rand, image []float32, h, w, c, side int) {
	side = min(side, h, w)
	top, left := r.IntN(h-side+1), r.IntN(w-side+1)
	for y := top; y < top+side; y++ {
		for i := (y*w + left) * c; i < (y*w+left+side)*c; i++ {
			image[i] = r.Float32()
		}
	}
}

// TestRecall asks for the logits of images as changes of their bases, with windows of all sizes, changes that stay, bases
// that come and go, change places and come twice in a batch, other weights, and programs for other batches in between. It
// expects them to be those of the images up to rounding, and to depend on nothing else, to the bit: they are the same from
// another backend that was asked one question at a time, in another order. Half of the time workers hand over images on the way.
func TestRecall(t *testing.T) {
	networks := []struct {
		name  string
		size  int
		steps int // at least
	}{{"resnet8-w16", 32, 5}, {"resnet18", 16, 3}, {"small-cnn", 20, 1}, {"mobilenet-v2", 16, 0}, {"wrn-10-1", 21, 3}, {"preact-resnet18", 12, 1}}
	if testing.Short() {
		networks = networks[:1]
	}
	for _, c := range networks {
		t.Run(c.name, func(t *testing.T) {
			forEachSet(t, func(t *testing.T, b *Backend) {
				net, err := zoo.New(c.name, 10, [3]int{c.size, c.size, 3})
				if err != nil {
					t.Fatal(err)
				}
				const people, many, few = 9, 7, 3
				rounds := 24
				if b.set.Name() == "generic" {
					rounds = 8 // slow
				}
				programs := []*asker{newAsker(t, b, net, many), newAsker(t, b, net, few)}
				alone := newAsker(t, newBackend(t, "threads=1,isa="+b.set.Name()), net, 1)
				names := ""
				for _, in := range programs[0].based.Executable().(*Executable).program.instructions {
					if strings.HasPrefix(in.name, "recall") {
						names = in.name
					}
				}
				if got := strings.Count(names, ";"); got < c.steps {
					t.Fatalf("%d steps are recalled, expected %d: %q", got, c.steps, names)
				}
				r := rng.New(1, "recall", rng.Key(c.name))
				size := c.size * c.size * 3
				base := make([][]float32, people)
				for i := range base {
					base[i] = make([]float32, size)
					redraw(r, base[i], c.size, c.size, 3, c.size)
				}
				for round := range rounds {
					b.pool.eager = round%2 == 1
					if round == rounds/2 {
						for _, p := range slices.Concat(programs, []*asker{alone}) {
							for i, v := range p.state {
								p.state[i] = tensors.FromFlatDataAndDimensions(halved(v.(*tensors.Tensor)), v.(*tensors.Tensor).Shape().Dimensions...)
							}
							p.load(t)
						}
					}
					p := programs[0]
					if round%5 == 3 {
						p = programs[1]
					}
					n := p.dims[0]
					var pixels, bases []float32
					people := r.Perm(people)[:n]
					if round%7 == 2 {
						people[1] = people[0]
					}
					for _, i := range people {
						image := slices.Clone(base[i])
						redraw(r, image, c.size, c.size, 3, r.IntN(1+r.IntN(c.size+1)))
						pixels, bases = append(pixels, image...), append(bases, base[i]...)
						if r.IntN(6) == 0 {
							base[i] = image
						}
					}
					where := fmt.Sprintf("round %d", round)
					got, plain := p.run(t, pixels, bases), p.run(t, pixels, nil)
					for _, i := range r.Perm(n) {
						x, from := pixels[i*size:][:size], bases[i*size:][:size]
						sameBits(t, where+": alone", got[i*10:][:10], alone.run(t, x, from))
						if slices.Equal(x, from) {
							sameBits(t, where+": nothing changed", got[i*10:][:10], plain[i*10:][:10])
						}
					}
					largest := 0.0
					for _, v := range plain {
						largest = max(largest, math.Abs(float64(v)))
					}
					for i, v := range plain {
						// Each of some tens of layers rounds anew: F(4x4)'s transforms to some 1e-6 of what they add up.
						if d := math.Abs(float64(v - got[i])); !(d <= 5e-5*largest) {
							t.Fatalf("%s: logit %d is %v, expected %v", where, i, got[i], v)
						}
					}
				}
			})
		})
	}
}

// halved are the values of a tensor times a half.
func halved(x *tensors.Tensor) []float32 {
	v := tensors.MustCopyFlatData[float32](x)
	for i := range v {
		v[i] /= 2
	}
	return v
}

// TestRecallForgets expects the memory of what is kept to go with the last program that can use it.
func TestRecallForgets(t *testing.T) {
	b := newBackend(t, "")
	net, err := zoo.New("resnet8-w16", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	one, two := newAsker(t, b, net, 2), newAsker(t, b, net, 2)
	pixels := make([]float32, 2*32*32*3)
	pixels[0] = 1
	one.run(t, pixels, pixels)
	if len(b.memories.of) != 2 || b.memories.region == nil {
		t.Fatalf("%d bases are kept, expected 2", len(b.memories.of))
	}
	two.run(t, pixels[:32*32*3*2], slices.Concat(pixels[:32*32*3], pixels[:32*32*3])) // other weights
	if len(b.memories.of) != 1 {
		t.Errorf("%d bases are kept after other weights, expected 1", len(b.memories.of))
	}
	one.based.Finalize()
	if b.memories.region == nil {
		t.Error("the memory is gone, but a program is left that uses it")
	}
	two.based.Finalize()
	if b.memories.region != nil || len(b.memories.of) != 0 {
		t.Error("the memory is still there after the last program")
	}
}

// BenchmarkRecall asks for logits of images that differ from their bases in windows of four pixels a side, and for those of
// the same images as they are.
func BenchmarkRecall(b *testing.B) {
	const images, size = 32, 32 * 32 * 3
	for _, name := range []string{"resnet20", "resnet18"} {
		net, err := zoo.New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			b.Fatal(err)
		}
		a := newAsker(b, newBackend(b, ""), net, images)
		r := rng.New(1, "recall", rng.Key(name))
		bases := make([]float32, images*size)
		for i := range bases {
			bases[i] = r.Float32()
		}
		for _, from := range []struct {
			name  string
			bases []float32
		}{{"plain", nil}, {"near", bases}} {
			b.Run(name+"/"+from.name, func(b *testing.B) {
				for b.Loop() {
					pixels := slices.Clone(bases)
					for image := range slices.Chunk(pixels, size) {
						redraw(r, image, 32, 32, 3, 4)
					}
					a.run(b, pixels, from.bases)
				}
			})
		}
	}
}
