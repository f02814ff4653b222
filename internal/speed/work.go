package speed

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/distill"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
)

// Images are a batch for the work below: random pixels, the start of a search near them, random labels.
type Images struct {
	X, Start *tensors.Tensor // float32 [N,32,32,3]
	Y        *tensors.Tensor // int32 [N], of 10 classes
}

// RandomImages draws n images.
func RandomImages(n int) Images {
	const size = 32 * 32 * 3
	r := rng.New(1, "speed images")
	x, start, y := make([]float32, n*size), make([]float32, n*size), make([]int32, n)
	for i := range x {
		x[i] = r.Float32()
		start[i] = x[i] + float32(0.001*r.NormFloat64())
	}
	for i := range y {
		y[i] = r.Int32N(10)
	}
	return Images{tensors.FromFlatDataAndDimensions(x, n, 32, 32, 3), tensors.FromFlatDataAndDimensions(start, n, 32, 32, 3), tensors.FromFlatDataAndDimensions(y, n)}
}

// Linf is the attacker of the work: eps 8/255, steps of 2/255.
func Linf(steps int) threat.Model {
	return threat.Model{Norm: threat.Linf, Epsilon: 8. / 255, StepSize: 2. / 255, Steps: steps, Start: threat.Gaussian}
}

// Work does a piece of work once and returns a number that tells whether it did it right.
type Work func() (float64, error)

// AdaAD is a training step of AdaAD as its authors run it, by SGD with momentum; its number is the loss.
func AdaAD(backend compute.Backend, student, teacher *classifier.Model, b Images, steps int) (Work, error) {
	m := distill.AdaAD(distill.AdaADSettings{Threat: Linf(steps), SearchMode: classifier.Eval, Alpha: 1, Temperature: 1, Reduction: distill.BatchMean, ForwardClean: true})
	return step(backend, student, []*classifier.Model{teacher}, m, b)
}

// PGDAT is a training step of adversarial training as Madry et al. take it, by SGD with momentum; its number is the loss.
func PGDAT(backend compute.Backend, model *classifier.Model, b Images, steps int) (Work, error) {
	return step(backend, model, nil, distill.PGDAT(distill.PGDATSettings{Threat: Linf(steps), SearchMode: classifier.Eval}), b)
}

func step(backend compute.Backend, student *classifier.Model, teachers []*classifier.Model, m distill.Method, b Images) (Work, error) {
	objective := train.Objective{Threat: m.Threat, SearchMode: m.SearchMode, Search: m.Search, Loss: m.Loss}
	s, err := train.NewStepper(backend, student, teachers, objective, train.SGD{Momentum: 0.9, WeightDecay: 5e-4}, 0, false)
	if err != nil {
		return nil, err
	}
	return func() (float64, error) {
		outcome, err := s.Step(b.X, b.Start, b.Y, 1e-3, 0)
		if err != nil {
			return 0, err
		}
		metrics, err := outcome.Read()
		return metrics.Loss, err
	}, nil
}

// PGD is an evaluation: a clean pass, a search from the images, a last pass. Its number is how many clean and how many perturbed images
// are classified correctly, together, plus the mean cross-entropy of the perturbed ones.
func PGD(backend compute.Backend, model *classifier.Model, b Images, steps int) (Work, error) {
	v := attack.NewVictim(backend, model)
	labels, pixels := tensors.MustCopyFlatData[int32](b.Y), tensors.MustCopyFlatData[float32](b.X)
	n, size := len(labels), b.X.Shape().Size()/len(labels)
	pgd := attack.PGD{Label: "pgd", Threat: Linf(steps)}
	pgd.Threat.Start = threat.FromImage
	return func() (float64, error) {
		clean, perturbed := make([][]float32, n), make([][]float32, n)
		crowd := attack.Crowd{Classifier: v, Batch: n, Seed: 1,
			Next: func(i int) ([]float32, int, int) { return pixels[i*size:][:size], int(labels[i]), i },
			Work: func(i int, im *attack.Image) (err error) {
				if clean[i], err = im.Logits(im.X); err != nil {
					return err
				}
				adv, err := pgd.Perturb(im)
				if err == nil {
					perturbed[i], err = im.Logits(adv)
				}
				return err
			},
			Done: func(int, *attack.Image) error { return nil },
		}
		if err := crowd.Run(context.Background(), n); err != nil {
			return 0, err
		}
		total := 0.0
		for i, y := range labels {
			if argmax(clean[i]) == int(y) {
				total++
			}
			if argmax(perturbed[i]) == int(y) {
				total++
			}
			sum := 0.0
			for _, z := range perturbed[i] {
				sum += math.Exp(float64(z - perturbed[i][y]))
			}
			total += math.Log(sum) / float64(n)
		}
		return total, nil
	}, nil
}

func argmax(x []float32) int {
	best := 0
	for i := range x {
		if x[i] > x[best] {
			best = i
		}
	}
	return best
}

// Logits is inference with weights that never change; its number is the sum of the logits' magnitudes.
func Logits(backend compute.Backend, model *classifier.Model, b Images) (Work, error) {
	exec, err := NewExec(backend, func(x *Node) *Node {
		var weights []*Node
		for _, t := range model.State {
			weights = append(weights, ConstTensor(x.Graph(), t))
		}
		return classifier.Bind(model.Network, weights).Logits(x, classifier.Eval)
	})
	if err != nil {
		return nil, err
	}
	if err := b.X.MaterializeOnDevice(backend, false, 0); err != nil {
		return nil, err
	}
	return func() (float64, error) {
		outs, err := exec.Call(b.X)
		if err != nil {
			return 0, fmt.Errorf("logits: %w", err)
		}
		defer outs[0].FinalizeAll()
		total := 0.0
		err = tensors.ConstFlatData(outs[0], func(flat []float32) {
			for _, z := range flat {
				total += math.Abs(float64(z))
			}
		})
		return total, err
	}, nil
}
