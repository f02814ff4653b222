package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

// Files of a run folder.
const (
	ledgerName   = "evaluation.jsonl" // its evaluation
	gapName      = "match-gap.json"   // how well it matches its teacher
	examplesName = "examples.json"    // some images under attack
	pageName     = "report.html"      // all of that to look at
)

// writePage makes the page of a run folder from what is in it, and returns its path. What was measured of other weights
// than those that are there now is left out.
func writePage(dir string) (string, error) {
	model, err := weights.Load(dir)
	if err != nil {
		return "", err
	}
	card, err := weights.LoadCard(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if card == nil {
		card = &weights.Card{}
	}
	hash, err := eval.Fingerprint(model)
	if err != nil {
		return "", err
	}
	page := &report.Page{Title: folderName(dir) + ": " + model.Name(), About: about(card)}
	for _, section := range []func() (*report.Section, error){
		func() (*report.Section, error) { return accuracySection(dir, hash, card) },
		func() (*report.Section, error) { return curvesSection(dir) },
		func() (*report.Section, error) { return gapSection(dir, hash) },
		func() (*report.Section, error) { return examplesSection(dir, hash) },
		func() (*report.Section, error) { return settingsSection(dir, model, card) },
	} {
		s, err := section()
		if err != nil {
			return "", err
		}
		if s != nil {
			page.Sections = append(page.Sections, *s)
		}
	}
	path := filepath.Join(dir, pageName)
	return path, weights.WriteFile(path, page.HTML)
}

// folderName is what a folder is called in tables.
func folderName(dir string) string {
	if whole, err := filepath.Abs(dir); err == nil {
		dir = whole
	}
	return filepath.Base(dir)
}

func about(card *weights.Card) string {
	text := "Trained"
	if card.Method != "" {
		text += " with " + card.Method
	}
	if card.Data != "" {
		text += " on " + card.Data
	}
	if card.Selection != "" {
		text += "; checkpoint: " + card.Selection
	}
	return text + "."
}

// accuracySection shows the evaluation.
func accuracySection(dir, hash string, card *weights.Card) (*report.Section, error) {
	s := &report.Section{Title: "Accuracy"}
	result, err := eval.Read(filepath.Join(dir, ledgerName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && result.Header.Weights == hash && result.Complete():
		s.Parts = append(s.Parts, report.Attacks("", conditions(result), card.Selection, withStages(result)))
		if f, err := classesFigure(result); err == nil {
			s.Parts = append(s.Parts, f)
		}
		return s, nil
	}
	s.Text = []string{"Not evaluated yet; adaad evaluate --model " + dir + " attacks it on test images."}
	return s, err
}

// hardest is the attack that the least stands, as tables name it: all of them together, or the only one; "" without any.
func hardest(r *eval.Result) string {
	all := r.Accuracies()
	if len(all) < 2 {
		return ""
	}
	return all[len(all)-1].Name
}

// classesFigure shows the accuracy in each class; it is an error if there was no attack.
func classesFigure(r *eval.Result) (*report.Figure, error) {
	all := r.Accuracies()
	clean, robust := all[0], all[len(all)-1]
	if hardest(r) == "" {
		return nil, errors.New("there was no attack")
	}
	var classes []report.Class
	for i, name := range r.Header.Classes {
		rate := func(a eval.Accuracy) report.Accuracy {
			return accuracy(r, eval.Accuracy{Name: a.Name, Rate: a.Classes[i]})
		}
		classes = append(classes, report.Class{Name: name, Clean: rate(clean), Robust: rate(robust)})
	}
	return report.Classes("Accuracy in each class", conditions(r), robust.Name, classes)
}

// curves are what a run logged after every epoch.
type curves struct {
	loss, clean, robust report.Curve
	attack              string // of robust
	images              int    // held out
}

func readCurves(dir string) (c curves, err error) {
	lines, err := train.ReadLog(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	point := func(to *report.Curve, epoch int, v float64) {
		to.Points = append(to.Points, report.Point{X: float64(epoch), Y: v, Low: v, High: v})
	}
	for _, l := range lines {
		if l.Event != "epoch" {
			continue
		}
		point(&c.loss, l.Epoch, l.Loss)
		if l.Score == nil {
			continue
		}
		c.images = l.Images
		point(&c.clean, l.Epoch, 100*l.Clean)
		if l.Attack != "" {
			c.attack = l.Attack
			point(&c.robust, l.Epoch, 100*l.Robust)
		}
	}
	c.loss.Name, c.clean.Name, c.robust.Name = "training", "clean", c.attack
	return c, nil
}

// curvesSection shows how the training went.
func curvesSection(dir string) (*report.Section, error) {
	c, err := readCurves(dir)
	if err != nil || len(c.loss.Points) == 0 {
		return nil, err
	}
	chosen := 0
	if record, err := train.ReadRecord(dir); err == nil && record.Chosen != nil {
		chosen = record.Chosen.Epoch
	}
	s := &report.Section{Title: "Learning curves"}
	loss, err := report.AgainstEpoch("Training loss", "loss", chosen, []report.Curve{c.loss})
	if err == nil {
		s.Parts = append(s.Parts, loss)
	}
	held, err := report.AgainstEpoch(fmt.Sprintf("Accuracy on %d held-out training images", c.images), "accuracy, %", chosen,
		[]report.Curve{c.clean, c.robust})
	if err == nil {
		s.Parts = append(s.Parts, held)
	}
	return s, nil
}

// examples are some images under attack, as they are kept in a run folder.
type examples struct {
	Weights string `json:"weights_sha256"`
	Attack  string `json:"attack"` // with all settings
	Data    string `json:"data"`
	report.Grid
}

// writeJSON writes a file of a run folder.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return weights.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// readJSON reads a file of a run folder that this program wrote. It is no error if it is not there.
func readJSON(path string, to any) (found bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, to); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
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

// teacherOf is the teacher that a run folder names, or nil where there is none or it is gone.
func teacherOf(dir string, set *data.Set) *classifier.Model {
	settings, err := recipe.ReadSettings(dir)
	if err != nil || len(settings.Teachers) == 0 {
		return nil
	}
	teacher, err := weights.Load(settings.Teachers[0])
	if err != nil || eval.Fits(teacher.Network, set) != nil {
		return nil
	}
	return teacher
}

// gapSection shows how well a run's model matches its teacher.
func gapSection(dir, hash string) (*report.Section, error) {
	var gap eval.Gap
	if found, err := readJSON(filepath.Join(dir, gapName), &gap); !found || gap.StudentWeights != hash {
		return nil, err
	}
	return &report.Section{Title: "How well it matches its teacher", Parts: []report.Part{gapTable("", &gap)}}, nil
}

// gapTable is a match gap as a table.
func gapTable(title string, gap *eval.Gap) *report.Table {
	t := &report.Table{Title: title, Columns: []report.Column{{Name: "around an image"}, {Name: "clean", Align: report.Right},
		{Name: "random points", Align: report.Right}, {Name: "worst point", Align: report.Right}}}
	plain := func(v float64) string { return fmt.Sprintf("%.4g", v) }
	for _, row := range []struct {
		name string
		of   func(eval.Spread) float64
	}{
		{"KL(T||S), mean", func(s eval.Spread) float64 { return s.Mean }},
		{"KL(T||S), median", func(s eval.Spread) float64 { return s.Median }},
		{"KL(T||S), 95th percentile", func(s eval.Spread) float64 { return s.P95 }},
	} {
		d := gap.Divergence
		t.Add(row.name, plain(row.of(d.Clean)), plain(row.of(d.Random)), plain(row.of(d.Worst)))
	}
	for _, of := range []struct {
		name   string
		slopes eval.Slopes
	}{{"probabilities", gap.Probabilities}, {"logits", gap.Logits}} {
		for _, row := range []struct {
			name string
			of   func(eval.SlopePair) string
		}{
			{"slope of S, " + of.name, func(p eval.SlopePair) string { return plain(p.Student.Mean) }},
			{"slope of T, " + of.name, func(p eval.SlopePair) string { return plain(p.Teacher.Mean) }},
			{"S by T, " + of.name, func(p eval.SlopePair) string { return fmt.Sprintf("%.2f", p.Ratio) }},
			{"S flatter than T, % of images", func(p eval.SlopePair) string { return report.Percent(p.Flatter) }},
		} {
			t.Add(row.name, "", row.of(of.slopes.Random), row.of(of.slopes.Worst))
		}
	}
	t.Notes = []string{fmt.Sprintf("S is the student %s, T its teacher %s. %d images of %s test; %s, eps %s: %d random points, worst points by searches of %d steps of %s.",
		gap.Student, gap.Teacher, gap.Images, gap.Data, gap.Norm, threat.Format(gap.Epsilon), gap.Points, gap.Steps, threat.Format(gap.StepSize)),
		"The slope of f is |f(x')-f(x)|_1 / |x'-x|; its greatest value in the ball, the local Lipschitz constant, is at least that at the worst point. " +
			"Slopes are means over images. docs/evaluation.md has the formulas."}
	return t
}

// longestCell is how much of a setting a page shows.
const longestCell = 300

// cut is a setting as a page shows it.
func cut(s string) string {
	var text string
	if json.Unmarshal([]byte(s), &text) == nil { // words are written without their quotes
		s = text
	}
	if runes := []rune(s); len(runes) > longestCell {
		return string(runes[:longestCell]) + "…"
	}
	return s
}

// settingsSection says everything that the run was told.
func settingsSection(dir string, model *classifier.Model, card *weights.Card) (*report.Section, error) {
	t := &report.Table{Columns: []report.Column{{Name: "setting"}, {Name: "value"}}}
	t.Add("model", fmt.Sprintf("%s, %s parameters, %s MACs", model.Name(), report.Count(int64(classifier.Count(model.Network))), report.Count(zoo.MACs(model.Network))))
	for _, a := range card.Accuracies {
		name := a.Attack
		if a.Epsilon != "" {
			name += " " + a.Norm + " eps " + a.Epsilon
		}
		t.Add("accuracy, "+name, fmt.Sprintf("%s on %d %s", report.Percent(a.Accuracy), a.Images, a.Of))
	}
	record, err := train.ReadRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &report.Section{Title: "Settings", Parts: []report.Part{t}}, nil
	}
	if err != nil {
		return nil, err
	}
	if record.Chosen != nil {
		t.Add("checkpoint", fmt.Sprintf("epoch %d, %s", record.Chosen.Epoch, record.Choice))
	}
	t.Add("training time", report.Duration(time.Duration(record.Seconds*float64(time.Second))))
	if record.InstructionSet != "" {
		t.Add("computed on", record.InstructionSet)
	}
	settings, err := train.Flatten(record.Settings)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		t.Add(name, cut(settings[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(record.Versions)) {
		t.Add(name, cut(record.Versions[name]))
	}
	return &report.Section{Title: "Settings", Parts: []report.Part{t}}, nil
}

// comparison puts evaluated runs side by side in a page in a folder: models and runs go together, and all were evaluated
// as one of them was.
func comparison(title, folder string, models []report.Model, runs []string, one *eval.Result) (*report.Page, error) {
	c := conditions(one)
	page := &report.Page{Title: title}
	accuracy := report.Section{Title: "Accuracy", Parts: []report.Part{report.Models("", c, models)}}
	for _, draw := range []func() (*report.Figure, error){
		func() (*report.Figure, error) {
			return report.Scatter("Clean against robust accuracy", c, hardest(one), models)
		},
		func() (*report.Figure, error) {
			return report.WorstClasses("Worst classes under attack", c, hardest(one), models)
		},
	} {
		if f, err := draw(); err == nil { // else there is nothing to draw
			accuracy.Parts = append(accuracy.Parts, f)
		}
	}
	page.Sections = append(page.Sections, accuracy)

	learning := report.Section{Title: "Learning curves"}
	var loss, clean, robust []report.Curve
	var links report.Links
	for i, run := range runs {
		c, err := readCurves(run)
		if err != nil {
			return nil, err
		}
		c.loss.Name, c.clean.Name, c.robust.Name = models[i].Name, models[i].Name, models[i].Name
		loss, clean, robust = append(loss, c.loss), append(clean, c.clean), append(robust, c.robust)
		if _, err := os.Stat(filepath.Join(run, pageName)); err != nil {
			continue
		}
		path, err := filepath.Rel(folder, filepath.Join(run, pageName))
		if err != nil {
			return nil, err
		}
		links = append(links, report.Link{Name: models[i].Name, Path: filepath.ToSlash(path)})
	}
	for _, draw := range []func() (*report.Figure, error){
		func() (*report.Figure, error) { return report.AgainstEpoch("Training loss", "loss", 0, loss) },
		func() (*report.Figure, error) {
			return report.AgainstEpoch("Held-out images", "clean accuracy, %", 0, clean)
		},
		func() (*report.Figure, error) {
			return report.AgainstEpoch("Held-out images under attack", "robust accuracy, %", 0, robust)
		},
	} {
		if f, err := draw(); err == nil {
			learning.Parts = append(learning.Parts, f)
		}
	}
	if len(learning.Parts) > 0 {
		page.Sections = append(page.Sections, learning)
	}
	images, err := comparedExamples(models, runs)
	if err != nil {
		return nil, err
	}
	if images != nil {
		page.Sections = append(page.Sections, *images)
	}
	if len(links) > 0 {
		page.Sections = append(page.Sections, report.Section{Title: "Each run", Parts: []report.Part{links}})
	}
	return page, nil
}

// comparedExamples shows some images under attack for each of the first runs.
func comparedExamples(models []report.Model, runs []string) (*report.Section, error) {
	const mostRuns, each = 8, 3
	section := &report.Section{Title: "Images under attack"}
	for i, run := range runs[:min(mostRuns, len(runs))] {
		var e examples
		found, err := readJSON(filepath.Join(run, examplesName), &e)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		e.Examples = e.Examples[:min(each, len(e.Examples))]
		for k := range e.Examples {
			e.Examples[k].Class += ", " + models[i].Name
		}
		section.Parts = append(section.Parts, &e.Grid)
	}
	if len(section.Parts) == 0 {
		return nil, nil
	}
	section.Text = []string{"Each model is attacked with PGD-20 on its own. Probabilities in percent, before and after."}
	return section, nil
}
