package cli

import (
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

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
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

// readCurves reads a run folder's log; without one there are no curves.
func readCurves(dir string) (c curves, err error) {
	if _, err := os.Stat(filepath.Join(dir, train.LogFile)); err != nil {
		return c, nil
	}
	lines, err := train.ReadLog(dir)
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
	if _, err := os.Stat(path); err != nil {
		return false, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, to); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
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
