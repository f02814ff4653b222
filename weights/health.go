package weights

import (
	"fmt"
	"math"

	"github.com/adaad-go/adaad/classifier"
)

// Finding is something that sound, trained weights do not show, and where it was found.
type Finding struct {
	What  string   `json:"what"`
	Where []string `json:"where"` // tensors or layers, with counts where not all of it is meant
}

// findings collects what is found, one Finding for each kind.
type findings []Finding

func (f *findings) add(what, where string, n, of int) {
	if n == 0 {
		return
	}
	if n < of {
		where += fmt.Sprintf(" (%d of %d)", n, of)
	}
	for i := range *f {
		if (*f)[i].What == what {
			(*f)[i].Where = append((*f)[i].Where, where)
			return
		}
	}
	*f = append(*f, Finding{what, []string{where}})
}

// NotFinite finds the tensors that hold NaN or infinities.
func (f *File) NotFinite() ([]Finding, error) {
	var found findings
	for _, t := range f.Tensors {
		switch t.DType {
		case "F64", "F32", "F16", "BF16":
		default:
			continue
		}
		values, err := t.Floats()
		if err != nil {
			return nil, err
		}
		found.add("NaN", t.Name, tally(values, func(v float32) bool { return v != v }), len(values))
		found.add("infinite values", t.Name, tally(values, func(v float32) bool { return math.IsInf(float64(v), 0) }), len(values))
	}
	return found, nil
}

// Oddities finds weights that do nothing and batch norms that look untrained or unsound, in the tensors that fit the
// network.
func (id *Identity) Oddities() ([]Finding, error) {
	var found findings
	zero := func(v float32) bool { return v == 0 }
	moved := false // whether any running statistic differs from what it starts as
	var still []string
	values := map[string][]float32{}
	for _, p := range id.Network.Params() {
		t, has := id.tensors[p.Name]
		if !has || count(t.Shape) != p.Size() {
			continue
		}
		v, err := t.Floats()
		if err != nil {
			return nil, err
		}
		values[p.Name] = v
		module, _ := splitName(p.Name)
		switch n := len(v); p.Kind {
		case classifier.ConvWeight, classifier.LinearWeight:
			filters := p.Shape[0]
			found.add("dead filters: all their weights are next to 0", p.Name, deadFilters(v, filters), filters)
		case classifier.NormWeight:
			switch dead := tally(v, zero); dead {
			case n:
				found.add("batch norms whose gamma is 0 in every channel: nothing passes them", p.Name, dead, n)
			default:
				found.add("batch norms with channels of gamma 0", p.Name, dead, n)
			}
		case classifier.RunningVar:
			found.add("negative running variances", p.Name, tally(v, func(v float32) bool { return v < 0 }), n)
			found.add("running variances of 0: channels that never changed", p.Name, tally(v, zero), n)
			mean := values[module+"running_mean"]
			if tally(v, func(v float32) bool { return v == 1 }) == n && tally(mean, zero) == len(mean) {
				still = append(still, module[:len(module)-1])
			} else {
				moved = true
			}
		}
	}
	what := "batch norms whose running statistics never moved"
	if !moved {
		what = "running statistics that never moved, in every batch norm: the network was not trained, or they were lost"
	}
	for _, layer := range still {
		found.add(what, layer, 1, 1)
	}
	return found, nil
}

func tally(values []float32, is func(v float32) bool) int {
	n := 0
	for _, v := range values {
		if is(v) {
			n++
		}
	}
	return n
}

// deadFilters counts the outputs of a layer whose weights are all below a millionth of the layer's largest: what is left
// of those that weight decay has shrunk since their gradient vanished.
func deadFilters(values []float32, filters int) int {
	const share = 1e-6
	if filters == 0 {
		return 0
	}
	largest := make([]float64, filters)
	overall := 0.0
	size := len(values) / filters
	for i, v := range values {
		a := math.Abs(float64(v))
		largest[i/size], overall = max(largest[i/size], a), max(overall, a)
	}
	n := 0
	for _, l := range largest {
		if l <= share*overall {
			n++
		}
	}
	return n
}
