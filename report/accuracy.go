package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Conditions are what accuracies were measured under. They stand below every table, as the numbers mean nothing without.
type Conditions struct {
	Data    string // "cifar10 test"
	Images  int
	Norm    string // "Linf"
	Epsilon string // "8/255"
}

func (c Conditions) String() string {
	return fmt.Sprintf("%d images of %s; %s perturbations, eps %s. Accuracies in percent with 95%% Wilson intervals.",
		c.Images, c.Data, c.Norm, c.Epsilon)
}

// Accuracy is how many images were answered right, out of how many, with its confidence interval (shares).
type Accuracy struct {
	Attack      string // "clean" for none
	Hits, Total int
	Low, High   float64

	WorstClass    string  // the class with the lowest accuracy; "" where that is not known
	WorstAccuracy float64 // its share
}

func (a Accuracy) value() float64 {
	if a.Total == 0 {
		return math.NaN()
	}
	return float64(a.Hits) / float64(a.Total)
}

// missing is written for what was not measured.
const missing = "-"

func (a Accuracy) percent() string {
	if a.Total == 0 {
		return missing
	}
	return Percent(a.value())
}

func (a Accuracy) interval() string {
	if a.Total == 0 {
		return missing
	}
	return Percent(a.Low) + " to " + Percent(a.High)
}

// head is what stands over an accuracy: one under attack always says how far the attack may go.
func head(attack string, c Conditions) string {
	if attack == "clean" {
		return "clean"
	}
	return attack + " eps " + c.Epsilon
}

// Attacks is the table of one model: a line for each attack. selection says how the checkpoint was chosen.
func Attacks(title string, c Conditions, selection string, accuracies []Accuracy) *Table {
	t := &Table{
		Title: title,
		Columns: []Column{{"attack", Left}, {"accuracy", Right}, {"95% interval", Right}, {"right", Right}, {"images", Right},
			{"worst class", Left}, {"accuracy there", Right}},
		Notes: []string{c.String(), checkpoints([]Model{{Selection: selection}})},
	}
	for _, a := range accuracies {
		class, there := missing, missing
		if a.WorstClass != "" {
			class, there = a.WorstClass, Percent(a.WorstAccuracy)
		}
		t.Add(head(a.Attack, c), a.percent(), a.interval(), fmt.Sprint(a.Hits), fmt.Sprint(a.Total), class, there)
	}
	return t
}

// Model is one line of a table of models.
type Model struct {
	Name       string
	Parameters int64         // 0 where that is not known, as the next
	MACs       int64         // multiply-adds of one forward pass over one image
	Accuracies []Accuracy    // clean and under attack, in any order
	Worst      *float64      // accuracy of the class with the lowest, under the last attack; nil where that is left out
	Latency    time.Duration // of one image on one thread; 0 where that was not measured
	Training   time.Duration // how long training took; 0 where that is not known
	Selection  string        // how the checkpoint was chosen
}

// find is the model's accuracy under an attack; of no images where it was not measured.
func (m Model) find(attack string) Accuracy {
	if i := slices.IndexFunc(m.Accuracies, func(a Accuracy) bool { return a.Attack == attack }); i >= 0 {
		return m.Accuracies[i]
	}
	return Accuracy{}
}

// Models is the table that compares models measured under the same conditions. It has a column for every attack that
// any of them met, in the order of first appearance, and for what else is known of any of them.
func Models(title string, c Conditions, models []Model) *Table {
	t := &Table{Title: title, Columns: []Column{{"model", Left}, {"parameters", Right}, {"MACs", Right}}}
	var attacks []string
	for _, m := range models {
		for _, a := range m.Accuracies {
			if !slices.Contains(attacks, a.Attack) {
				attacks = append(attacks, a.Attack)
				t.Columns = append(t.Columns, Column{head(a.Attack, c), Right})
			}
		}
	}
	worst := slices.ContainsFunc(models, func(m Model) bool { return m.Worst != nil })
	if worst {
		t.Columns = append(t.Columns, Column{"worst class", Right})
	}
	latency := slices.ContainsFunc(models, func(m Model) bool { return m.Latency > 0 })
	if latency {
		t.Columns = append(t.Columns, Column{"latency", Right})
	}
	t.Columns = append(t.Columns, Column{"training", Right})
	var widest float64
	for _, m := range models {
		row := []string{m.Name, missing, missing}
		if m.Parameters > 0 {
			row[1], row[2] = Count(m.Parameters), Count(m.MACs)
		}
		for _, name := range attacks {
			a := m.find(name)
			row = append(row, a.percent())
			if a.Total > 0 {
				widest = max(widest, a.High-a.value(), a.value()-a.Low)
			}
		}
		if worst {
			share := missing
			if m.Worst != nil {
				share = Percent(*m.Worst)
			}
			row = append(row, share)
		}
		if latency {
			row = append(row, took(m.Latency))
		}
		t.Add(append(row, took(m.Training))...)
	}
	t.Notes = []string{c.String()}
	if widest > 0 {
		t.Notes[0] += fmt.Sprintf(" No interval reaches further than %s from its accuracy.", Percent(widest))
	}
	if worst {
		t.Notes = append(t.Notes, "Worst class: the lowest accuracy of a class under "+attacks[len(attacks)-1]+".")
	}
	if latency {
		t.Notes = append(t.Notes, "Latency: one image on one thread of this machine, median.")
	}
	t.Notes = append(t.Notes, checkpoints(models))
	return t
}

func took(d time.Duration) string {
	if d <= 0 {
		return missing
	}
	return Duration(d)
}

// checkpoints says how the models' checkpoints were chosen, naming models only where they differ.
func checkpoints(models []Model) string {
	var ways []string
	chosen := map[string][]string{}
	for _, m := range models {
		way := m.Selection
		if way == "" {
			way = "not recorded"
		}
		if chosen[way] == nil {
			ways = append(ways, way)
		}
		chosen[way] = append(chosen[way], m.Name)
	}
	if len(ways) == 1 {
		return "Checkpoint: " + ways[0] + "."
	}
	for i, way := range ways {
		ways[i] = strings.Join(chosen[way], ", ") + ": " + way
	}
	return "Checkpoints: " + strings.Join(ways, "; ") + "."
}
