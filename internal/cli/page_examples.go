package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
)

// examples are some images under attack, as they are kept in a run folder.
type examples struct {
	Weights string `json:"weights_sha256"`
	Attack  string `json:"attack"` // with all settings
	Data    string `json:"data"`
	report.Grid
}

func examplesSection(dir, hash string) (*report.Section, error) {
	var e examples
	if found, err := readJSON(filepath.Join(dir, examplesName), &e); !found || e.Weights != hash {
		return nil, err
	}
	return &report.Section{Title: "Images under attack", Text: []string{fmt.Sprintf("Of %s, one of each class in turn, not chosen by what became of them. "+
		"The attack is on the model of this run: %s. Probabilities in percent, before and after.", e.Data, e.Attack)}, Parts: []report.Part{&e.Grid}}, nil
}

// exampleImages is how many images a page shows.
const exampleImages = 9

// showExamples attacks a few of an evaluation's images anew, with PGD-20 whatever it was made with, asks student and teacher
// about them, and leaves all of it in the run folder. teacher may be nil.
func showExamples(ctx context.Context, backend compute.Backend, e eval.Evaluation, teacher *classifier.Model, dir string) error {
	e.Set = e.Set.Subset(exampleImages, e.Seed)
	pgd := attack.NewPGD(e.Norm, e.Epsilon, 20)
	perturbed, err := e.Perturb(ctx, backend, pgd)
	if err != nil {
		return err
	}
	hash, err := eval.Fingerprint(e.Model)
	if err != nil {
		return err
	}
	out := examples{Weights: hash, Attack: pgd.Name() + ", " + pgd.String(), Data: e.Set.Name + " test"}
	out.Amplified = amplification(e.Set, perturbed)
	for i, after := range perturbed {
		before := make([]float32, len(after))
		data.Floats(before, e.Set.Image(i))
		picture, err := report.Picture(e.Set.Height, e.Set.Width, e.Set.Channels, before, after, out.Amplified)
		if err != nil {
			return err
		}
		picture.Class = e.Set.Classes[e.Set.Labels[i]]
		out.Examples = append(out.Examples, picture)
	}
	for _, m := range []struct {
		who   string
		model *classifier.Model
	}{{"teacher", teacher}, {"student", e.Model}} {
		if m.model == nil {
			continue
		}
		if teacher == nil {
			m.who = "model"
		}
		if err := ask(ctx, backend, m.who+" "+m.model.Name(), m.model, e.Set, perturbed, out.Examples); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, examplesName), out)
}

// ask adds what a model says of images before and after an attack.
func ask(ctx context.Context, backend compute.Backend, who string, model *classifier.Model, set *data.Set, perturbed [][]float32,
	to []report.Example) error {
	victim := attack.NewVictim(backend, model)
	defer victim.Finalize()
	var pixels []float32
	for i := range perturbed {
		clean := make([]float32, set.ImageSize())
		data.Floats(clean, set.Image(i))
		pixels = append(append(pixels, clean...), perturbed[i]...)
	}
	logits, err := victim.Logits(ctx, pixels)
	if err != nil {
		return err
	}
	of := func(k, label int) []report.Chance {
		classes := len(set.Classes)
		return report.Chances(set.Classes, label, eval.Probabilities(logits[k*classes:(k+1)*classes]))
	}
	for i := range to {
		label := set.Labels[i]
		to[i].Answers = append(to[i].Answers, report.Answer{Who: who, Before: of(2*i, label), After: of(2*i+1, label)})
	}
	return nil
}

// amplification is how much stronger perturbations can be drawn so that the largest still fits between black and white.
func amplification(set *data.Set, perturbed [][]float32) float64 {
	var largest float64
	for i, after := range perturbed {
		before := make([]float32, len(after))
		data.Floats(before, set.Image(i))
		largest = max(largest, threat.Linf.Distance(after, before))
	}
	if largest == 0 {
		return 1
	}
	return 0.5 / largest
}
