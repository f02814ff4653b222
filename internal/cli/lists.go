package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/schollz/progressbar/v3"
)

// show writes a list as a table, and as JSON where that is asked for.
func (g *globals) show(t *report.Table, list any) error {
	if g.JSON != "-" {
		if err := t.Text(g.env.Stdout); err != nil {
			return err
		}
	}
	return g.writeJSON(list)
}

type modelsCmd struct {
	Pretrained bool   `help:"List the released weights instead."`
	Dir        string `help:"With --pretrained: the folder they are in, part of the repository." default:"pretrained" placeholder:"DIR"`
}

func (modelsCmd) Help() string {
	return `Examples:
  adaad models
  adaad models --pretrained`
}

func (c modelsCmd) Run(g *globals) error {
	if c.Pretrained {
		return g.pretrained(c.Dir)
	}
	t := &report.Table{
		Columns: []report.Column{{Name: "model"}, {Name: "parameters", Align: report.Right}, {Name: "MACs", Align: report.Right}, {Name: "input"}, {Name: "source"}},
		Notes: []string{"Sizes are for 10 classes. Any width of a CIFAR ResNet is resnet20-w32, any depth 6n+2 resnetD; any Wide ResNet is wrn-16-4, " +
			"in LTD's form wrn-16-4-ltd, in DeepMind's wrn-16-4-dm and wrn-16-4-dm-relu. A network that normalises its images ends in " +
			zoo.Normalised + ". Other image sizes and class counts come from the data."},
	}
	list := zoo.List()
	for _, e := range list {
		t.Add(e.Name, report.Count(int64(e.Params)), report.Count(e.MACs), fmt.Sprintf("%dx%dx%d", e.Input[0], e.Input[1], e.Input[2]), e.Source)
	}
	return g.show(t, list)
}

// released is a file of released weights.
type released struct {
	File  string       `json:"file"`
	Bytes int64        `json:"bytes"`
	Card  weights.Card `json:"card"`
}

// pretrained lists the weights in a folder by their cards.
func (g *globals) pretrained(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return usage(fmt.Errorf("there is no folder %s; it is part of the repository: name it with --dir", dir))
	}
	if err != nil {
		return err
	}
	t := &report.Table{
		Columns: []report.Column{{Name: "file"}, {Name: "model"}, {Name: "method"},
			{Name: "attack"}, {Name: "percent", Align: report.Right}, {Name: "images", Align: report.Right}},
	}
	list, bytes := []released{}, int64(0)
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != ".safetensors" {
			continue
		}
		file := filepath.Join(dir, entry.Name())
		info, err := entry.Info()
		if err != nil {
			return err
		}
		card, err := weights.LoadCard(file)
		if err != nil {
			return err
		}
		list = append(list, released{file, info.Size(), *card})
		bytes += info.Size()
		row := []string{entry.Name(), card.Model, card.Method}
		for _, a := range card.Accuracies {
			if a.Of != "test" {
				continue
			}
			t.Add(append(row, strings.Join(strings.Fields(a.Attack+" "+a.Norm+" "+a.Epsilon), " "), fmt.Sprintf("%.2f", 100*a.Accuracy), fmt.Sprint(a.Images))...)
			row = make([]string, len(row))
		}
		if row[0] != "" {
			t.Add(append(row, "-", "-", "-")...)
		}
	}
	if len(list) == 0 {
		fmt.Fprintf(g.env.Stderr, "no weights are released in %s yet\n", dir)
		return g.writeJSON(list)
	}
	t.Notes = []string{fmt.Sprintf("Accuracies in percent of so many test images. The files are in %s, %.1f MB together; every command takes them as --model, --teacher "+
		"or --surrogate. The card beside each says how it was trained and chosen.", dir, float64(bytes)/1e6)}
	return g.show(t, list)
}

type methodsCmd struct{}

func (methodsCmd) Help() string { return "Example:\n  adaad methods" }

func (methodsCmd) Run(g *globals) error {
	t := &report.Table{
		Columns: []report.Column{
			{Name: "method"}, {Name: "teachers", Align: report.Right}, {Name: "what the student learns"},
			{Name: "settings of its own"}, {Name: "source"},
		},
		Notes: []string{"Settings are changed with --set KEY=VALUE; docs/methods.md has each method's equations. " +
			"igdm takes its base's settings too."},
	}
	list := recipe.Methods()
	for _, m := range list {
		settings := "-"
		if len(m.Settings) > 0 {
			settings = strings.Join(m.Settings, ", ")
		}
		t.Add(m.Name, fmt.Sprint(m.Teachers), m.What, settings, m.Source)
	}
	return g.show(t, list)
}

type recipesCmd struct {
	Words []string `arg:"" optional:"" help:"Show only recipes that have all these words in their line, such as adaad cifar100 eps32 code."`
}

func (recipesCmd) Help() string {
	return `Without words, the recipes at radii beyond 8/255 are left out; eps16, eps24 and eps32 find them.

Examples:
  adaad recipes
  adaad recipes adaad cifar100
  adaad recipes resnet18 eps32`
}

func (c recipesCmd) Run(g *globals) error {
	t := &report.Table{
		Columns: []report.Column{
			{Name: "recipe"}, {Name: "model"}, {Name: "eps"}, {Name: "epochs", Align: report.Right},
			{Name: "teachers", Align: report.Right}, {Name: "reported: clean/AutoAttack"},
		},
		Notes: []string{"Names that end in -code run as the authors' code does, the others of the papers' as the equations say. " +
			"Reported accuracies are in percent, at eps 8/255; a star marks those seen second-hand. --json has every setting."},
	}
	if len(c.Words) == 0 {
		t.Notes = append(t.Notes, "Not shown: radii 16, 24 and 32/255 (adaad recipes eps32).")
	}
	list := []recipe.Preset{}
	for _, p := range recipe.Presets() {
		row, err := recipeRow(p)
		if err != nil {
			return err
		}
		line := strings.ToLower(strings.Join(row, " ") + " " + p.Source + " " + p.Needs)
		missing := slices.ContainsFunc(c.Words, func(word string) bool { return !strings.Contains(line, strings.ToLower(word)) })
		if missing || len(c.Words) == 0 && p.LargeRadius() {
			continue
		}
		list = append(list, p)
		t.Add(row...)
	}
	if len(list) == 0 {
		return usage(fmt.Errorf("no recipe has all of the words %s; adaad recipes lists them", strings.Join(c.Words, " ")))
	}
	return g.show(t, list)
}

// recipeRow is a recipe's line in the list.
func recipeRow(p recipe.Preset) ([]string, error) {
	eps := "-"
	if p.Search.Steps > 0 {
		text, err := p.Search.Epsilon.MarshalText()
		if err != nil {
			return nil, err
		}
		eps = string(text)
	}
	m, err := recipe.FindMethod(p.Method)
	if err != nil {
		return nil, err
	}
	reported := "-"
	for i, r := range p.Reported {
		if i == 0 {
			reported = r.String()
		} else {
			reported += ", " + r.String()
		}
	}
	return []string{p.Recipe, p.Model, eps, fmt.Sprint(p.Epochs), fmt.Sprint(m.Teachers), reported}, nil
}

type attacksCmd struct{}

func (attacksCmd) Help() string { return "Example:\n  adaad attacks" }

func (attacksCmd) Run(g *globals) error {
	t := &report.Table{Columns: []report.Column{{Name: "attack"}, {Name: "what it does"}, {Name: "source"}}}
	list := attack.Infos()
	for _, a := range list {
		t.Add(a.Name, a.About, a.Source)
	}
	return g.show(t, list)
}

type datasetsCmd struct {
	Download string `help:"Get the official files of cifar10, cifar100 or mnist." placeholder:"NAME" enum:",cifar10,cifar100,mnist" default:""`
	DataDir  string `help:"Folder to download into." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
}

func (datasetsCmd) Help() string {
	return "Examples:\n  adaad datasets\n  adaad datasets --download cifar10 --data-dir data"
}

func (c datasetsCmd) Run(ctx context.Context, g *globals) error {
	if c.Download != "" {
		return c.download(ctx, g)
	}
	t := &report.Table{
		Columns: []report.Column{{Name: "data set"}, {Name: "images"}, {Name: "classes", Align: report.Right}, {Name: "train", Align: report.Right}, {Name: "test", Align: report.Right}, {Name: "source"}},
	}
	list := data.Infos()
	for _, i := range list {
		size := "any"
		if i.Height > 0 {
			size = fmt.Sprintf("%dx%dx%d", i.Height, i.Width, i.Channels)
		}
		t.Add(i.Name, size, orAny(i.Classes), orAny(i.Train), orAny(i.Test), i.Source)
	}
	return g.show(t, list)
}

func (c datasetsCmd) download(ctx context.Context, g *globals) error {
	if c.DataDir == "" {
		return usage(errors.New("--download needs --data-dir DIR, the folder to put the files in"))
	}
	var bar *progressbar.ProgressBar
	told := time.Now()
	progress := func(done, total int64) {
		if bar == nil {
			bar = g.bar(c.Download, total, progressbar.OptionShowBytes(true))
		}
		switch {
		case bar != nil:
			drawn(bar.Set64(done))
		case !g.Quiet && time.Since(told) > 10*time.Second:
			told = time.Now()
			fmt.Fprintf(g.env.Stderr, "%s: %s of %s bytes\n", c.Download, report.Count(done), report.Count(total))
		}
	}
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return err
	}
	if err := data.Download(ctx, c.Download, c.DataDir, progress); err != nil {
		return err
	}
	_, err := fmt.Fprintf(g.env.Stdout, "%s is in %s\n", c.Download, c.DataDir)
	return err
}

func orAny(n int) string {
	if n == 0 {
		return "any"
	}
	return fmt.Sprint(n)
}
