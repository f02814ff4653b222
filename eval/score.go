package eval

import (
	"context"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// Scorer measures clean and robust accuracy on the same images again and again, as training does after every epoch.
// What it compiles serves all values of the network's parameters.
type Scorer struct {
	h      *harness
	victim *attack.Victim
	attack bool
}

// NewScorer makes a scorer that attacks with PGD on the cross-entropy under the given settings, or not at all where
// they have no steps. A batch size of 0 takes 16, which suits CPUs.
func NewScorer(backend compute.Backend, net classifier.Network, set *data.Set, search threat.Model, size int, seed uint64) (*Scorer, error) {
	if err := Fits(net, set); err != nil {
		return nil, err
	}
	if err := search.Validate(); err != nil {
		return nil, err
	}
	var suites []attack.Suite
	if search.Steps > 0 {
		pgd := attack.PGD{Label: "validation", Threat: search, Loss: attack.CrossEntropy}
		suites = append(suites, attack.Suite{Name: pgd.Label, Attacks: []attack.Attack{pgd}})
	}
	victim := attack.NewVictim(backend, &classifier.Model{Network: net})
	ball := threat.Model{Norm: search.Norm, Epsilon: search.Epsilon}
	return &Scorer{&harness{victim, set, ball, suites, seed, batchSize(size)}, victim, len(suites) > 0}, nil
}

// Score measures the network with the given parameters, in the order of its Params. Without an attack robust is 0 of 0.
func (s *Scorer) Score(ctx context.Context, state []*tensors.Tensor) (clean, robust Rate, err error) {
	s.victim.SetState(state)
	all := make([]int, s.h.set.Len())
	for i := range all {
		all[i] = i
	}
	err = s.h.run(ctx, all, func(_ int, r record) error {
		clean.count(r.row.Prediction == r.row.Label)
		if s.attack {
			robust.count(r.row.BrokenBy == "")
		}
		return nil
	}, nil)
	return clean, robust, err
}

// Finalize frees what was compiled.
func (s *Scorer) Finalize() { s.victim.Finalize() }
