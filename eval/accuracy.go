package eval

import (
	"math"
	"slices"
)

// Rate is how many of how many.
type Rate struct {
	Hits, Total int
}

// Value is the share, between 0 and 1; 0 of nothing is 0.
func (r Rate) Value() float64 {
	if r.Total == 0 {
		return 0
	}
	return float64(r.Hits) / float64(r.Total)
}

// Wilson is the 95% confidence interval of the share in the population that the images were drawn from (Wilson 1927).
// Unlike the normal approximation it stays within [0,1] and has a width at 0 and 1. Nothing measured gives (0, 1).
func (r Rate) Wilson() (low, high float64) {
	if r.Total == 0 {
		return 0, 1
	}
	const z = 1.959963984540054 // the normal distribution's 97.5% quantile
	n, p := float64(r.Total), r.Value()
	centre := p + z*z/(2*n)
	spread := z * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	scale := 1 + z*z/n
	return max(0, (centre-spread)/scale), min(1, (centre+spread)/scale)
}

// Accuracy is the share of images answered right under one attack, overall and for each class.
type Accuracy struct {
	Name string // "clean", a suite, or "worst case"
	Rate
	Classes []Rate
}

// WorstClass is the class with the lowest accuracy among those that have images: its index, and -1 where none has.
func (a Accuracy) WorstClass() int {
	worst := -1
	for i, r := range a.Classes {
		if r.Total > 0 && (worst < 0 || r.Value() < a.Classes[worst].Value()) {
			worst = i
		}
	}
	return worst
}

// WorstCase names the accuracy over images that stand every suite.
const WorstCase = "worst case"

// Accuracies are the columns of a table: clean, every suite and, where there are several suites, the worst case: images
// that stand them all. Each counts all images; one that is wrong when clean is wrong under every attack.
func (r *Result) Accuracies() []Accuracy {
	names := []string{"clean"}
	for _, a := range r.Header.Attacks {
		names = append(names, a.Name)
	}
	if len(names) > 2 {
		names = append(names, WorstCase)
	}
	columns := make([]Accuracy, len(names))
	for i, name := range names {
		columns[i] = Accuracy{Name: name, Classes: make([]Rate, len(r.Header.Classes))}
		for _, row := range r.Rows {
			right := row.Prediction == row.Label
			switch {
			case !right || i == 0:
			case name == WorstCase:
				right = row.BrokenBy == ""
			default:
				right = !row.Attacks[i-1].Broken
			}
			columns[i].count(right)
			columns[i].Classes[row.Label].count(right)
		}
	}
	return columns
}

// Stages are the accuracies after each attack of a suite but the last, none for a suite of one. Suites count from 0.
func (r *Result) Stages(suite int) []Accuracy {
	if suite < 0 || suite >= len(r.Header.Attacks) {
		return nil
	}
	h := r.Header.Attacks[suite]
	var columns []Accuracy
	for k := range max(len(h.Stages)-1, 0) {
		a := Accuracy{Name: "after " + h.Stages[k], Classes: make([]Rate, len(r.Header.Classes))}
		for _, row := range r.Rows {
			stands := row.Prediction == row.Label
			if stands {
				o := row.Attacks[suite]
				stands = !o.Broken || slices.Index(h.Stages, o.Attack) > k
			}
			a.count(stands)
			a.Classes[row.Label].count(stands)
		}
		columns = append(columns, a)
	}
	return columns
}

func (r *Rate) count(hit bool) {
	r.Total++
	if hit {
		r.Hits++
	}
}
