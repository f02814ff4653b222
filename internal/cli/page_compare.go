package cli

import (
	"os"
	"path/filepath"

	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
)

// comparison is the page, to stand in a folder, of models that were all evaluated as one of them was. dirs are where they
// are, in the same order.
func comparison(title, folder string, models []report.Model, dirs []string, one *eval.Result) (*report.Page, error) {
	c, attack := conditions(one), hardest(one)
	accuracy := report.Section{Title: "Accuracy", Parts: []report.Part{report.Models("", c, models)}}
	// Where there was no attack there is nothing to draw.
	if f, err := report.Scatter("Clean and robust accuracy", c, attack, models); err == nil {
		accuracy.Parts = append(accuracy.Parts, f)
	}
	if f, err := report.WorstClasses("Worst classes under attack", c, attack, models); err == nil {
		accuracy.Parts = append(accuracy.Parts, f)
	}
	var sides []side
	for i, dir := range dirs {
		sides = append(sides, side{models[i].Name, dir})
	}
	page := &report.Page{Title: title, Sections: []report.Section{accuracy}}
	for _, section := range []func() (*report.Section, error){
		func() (*report.Section, error) { return curvesOf(sides) },
		func() (*report.Section, error) { return examplesOf(sides) },
		func() (*report.Section, error) { return pagesOf(folder, sides) },
	} {
		s, err := section()
		if err != nil {
			return nil, err
		}
		if len(s.Parts) > 0 {
			page.Sections = append(page.Sections, *s)
		}
	}
	return page, nil
}

// side is a run that stands beside others, and its name there.
type side struct{ name, dir string }

// mostSides is how many runs a page shows curves and images of.
const mostSides = 8

// curvesOf shows how the first of the trainings went.
func curvesOf(sides []side) (*report.Section, error) {
	var loss, clean, robust []report.Curve
	for _, s := range sides[:min(mostSides, len(sides))] {
		c, err := readCurves(s.dir)
		if err != nil {
			return nil, err
		}
		c.loss.Name, c.clean.Name, c.robust.Name = s.name, s.name, s.name
		loss, clean, robust = append(loss, c.loss), append(clean, c.clean), append(robust, c.robust)
	}
	section := &report.Section{Title: "Learning curves"}
	for _, figure := range []struct {
		title, measured string
		curves          []report.Curve
	}{
		{"Training loss", "loss", loss},
		{"Held-out training images", "clean accuracy, %", clean},
		{"Held-out training images under attack", "robust accuracy, %", robust},
	} {
		if f, err := report.AgainstEpoch(figure.title, figure.measured, 0, figure.curves); err == nil { // else there is nothing to draw
			section.Parts = append(section.Parts, f)
		}
	}
	return section, nil
}

// examplesOf shows some images under attack for each of the first runs.
func examplesOf(sides []side) (*report.Section, error) {
	const each = 3
	section := &report.Section{Title: "Images under attack",
		Text: []string{"Each model is attacked on its own. Probabilities in percent, before and after."}}
	for _, s := range sides[:min(mostSides, len(sides))] {
		var e examples
		found, err := readJSON(filepath.Join(s.dir, examplesName), &e)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		e.Examples = e.Examples[:min(each, len(e.Examples))]
		for i := range e.Examples {
			e.Examples[i].Class += ", " + s.name
		}
		section.Parts = append(section.Parts, &e.Grid)
	}
	return section, nil
}

// pagesOf leads to the runs' own pages.
func pagesOf(folder string, sides []side) (*report.Section, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	var links report.Links
	for _, s := range sides {
		page, err := filepath.Abs(filepath.Join(s.dir, pageName))
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(page); err != nil {
			continue
		}
		path, err := filepath.Rel(folder, page)
		if err != nil {
			return nil, err
		}
		links = append(links, report.Link{Name: s.name, Path: filepath.ToSlash(path)})
	}
	section := &report.Section{Title: "Each run"}
	if len(links) > 0 {
		section.Parts = append(section.Parts, links)
	}
	return section, nil
}
