package attack

import (
	"context"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/zoo"
)

// instant is a classifier of 32x32 colour images that answers at once: what takes time is the attack.
type instant struct{ logits, gradient []float32 }

func (*instant) Input() (int, int, int) { return 32, 32, 3 }
func (*instant) Classes() int           { return 10 }

func (c *instant) Logits(_ context.Context, images []float32) ([]float32, error) {
	return c.logits[:len(images)/(32*32*3)*10], nil
}

func (c *instant) Gradient(_ context.Context, images []float32, _ []Goal) (logits, gradient []float32, err error) {
	return c.logits[:len(images)/(32*32*3)*10], c.gradient[:len(images)], nil
}

// BenchmarkOwnPart is what an attack itself takes for each image it asks about, whatever the network.
func BenchmarkOwnPart(b *testing.B) {
	const batch, n = 16, 64
	c := &instant{make([]float32, batch*10), make([]float32, batch*32*32*3)}
	for i := range c.gradient {
		c.gradient[i] = float32(i*7919%1009)/1009 - 0.5
	}
	for i := range c.logits {
		c.logits[i] = float32(10 - i%10) // class 0, every time
	}
	x := make([]float32, 32*32*3)
	for i := range x {
		x[i] = float32(i%251) / 251
	}
	for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
		square := NewSquare(norm, 8./255)
		square.Queries = 500
		for _, a := range []Attack{APGDT(norm, 8./255), FABT(norm, 8./255), square} {
			b.Run(a.Name()+"/"+norm.String(), func(b *testing.B) {
				asked := 0
				for b.Loop() {
					err := (&Crowd{
						Classifier: c, Batch: batch,
						Next: func(i int) ([]float32, int, int) { return x, 0, i },
						Work: func(_ int, im *Image) error {
							_, err := a.Perturb(im)
							return err
						},
						Done: func(_ int, im *Image) error {
							asked += im.Spent.Gradients + im.Spent.Forwards
							return nil
						},
					}).Run(b.Context(), n)
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(asked), "µs/image")
			})
		}
	}
}

// BenchmarkCompile prepares the graph of a gradient for 40 images, which is what a number of images that comes again costs
// once in place of padding.
func BenchmarkCompile(b *testing.B) {
	backend, err := vec.New("")
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Finalize()
	for _, name := range []string{"resnet20", "resnet18"} {
		net, err := zoo.New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			v := NewVictim(backend, zoo.Init(net, 1))
			defer v.Finalize()
			if err := v.load(); err != nil {
				b.Fatal(err)
			}
			const n = 40
			if err := v.fill(n, make([]float32, n*32*32*3), nil, make([]Goal, n)); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				g, err := v.compile(program{size: n, gradient: true, loss: Difference})
				if err != nil {
					b.Fatal(err)
				}
				g.Finalize()
			}
		})
	}
}
