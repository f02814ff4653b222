package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

type inspectCmd struct {
	File string `arg:"" help:"PyTorch, safetensors or ONNX file, or run folder."`
	hints
	Data    string `help:"Measure its clean accuracy on the test images of this data set." placeholder:"NAME"`
	DataDir string `help:"Folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Samples int    `help:"Measure on a class-balanced subset of so many images; 0 takes all." placeholder:"N"`
}

func (inspectCmd) Help() string {
	return `Says what is in a file of weights, which network it fits, and whether it is sound. Nothing in the file is executed.

Examples:
  adaad inspect teacher.pt
  adaad inspect teacher.pt --data cifar10 --data-dir data
  adaad inspect teacher.pt --model wrn-34-10      # what is missing for that network?`
}

// inspection is what adaad inspect finds.
type inspection struct {
	File    string         `json:"file"`
	Format  string         `json:"format"`
	Bytes   int64          `json:"bytes"`
	SHA256  string         `json:"sha256"`
	Entry   string         `json:"entry,omitempty"`
	Others  []string       `json:"other_entries,omitempty"`
	Prefix  string         `json:"prefix,omitempty"`
	Tensors int            `json:"tensors"`
	DTypes  map[string]int `json:"dtypes"` // values of each type

	Network  *recognised       `json:"network,omitempty"`
	Unknown  string            `json:"unknown,omitempty"` // why there is no network
	Findings []weights.Finding `json:"findings,omitempty"`
	Clean    *clean            `json:"clean,omitempty"`
	Card     *weights.Card     `json:"card,omitempty"`
}

// recognised is the network that a file's weights are of.
type recognised struct {
	Model         string    `json:"model"`
	Classes       int       `json:"classes"`
	Input         [3]int    `json:"input"`
	Normalisation string    `json:"normalisation,omitempty"`
	Mean          []float32 `json:"mean,omitempty"`
	Std           []float32 `json:"std,omitempty"`
	Parameters    int       `json:"parameters"`
	Idle          int       `json:"idle_parameters,omitempty"` // that no forward pass visits
	MACs          int64     `json:"macs,omitempty"`            // not known of an ONNX file
	Assumed       []string  `json:"assumed,omitempty"`
	Missing       []pair    `json:"missing,omitempty"`
	Unexpected    []string  `json:"unexpected,omitempty"`
	Wrong         []misfit  `json:"wrongly_shaped,omitempty"`
}

// pair is a missing tensor and the unexpected one whose name comes closest.
type pair struct {
	Name    string `json:"name"`
	Closest string `json:"closest,omitempty"`
}

// misfit is a tensor of another shape than expected.
type misfit struct {
	Name     string `json:"name"`
	Shape    []int  `json:"shape"`
	Expected []int  `json:"expected"`
}

// clean is an accuracy without attack.
type clean struct {
	Data     string  `json:"data"`
	Images   int     `json:"images"`
	Accuracy float64 `json:"accuracy"`
	Low      float64 `json:"low"` // 95% Wilson interval
	High     float64 `json:"high"`
}

func (c *inspectCmd) Run(ctx context.Context, g *globals) error {
	if weights.IsONNX(c.File) {
		return c.onnx(ctx, g)
	}
	f, err := weights.Open(c.File, c.Entry)
	if err != nil {
		return usage(err)
	}
	r := &inspection{File: f.Path, Format: f.Format, Entry: f.Entry, Others: f.Others, DTypes: map[string]int{}}
	r.count(f)
	info, err := os.Stat(f.Path)
	if err != nil {
		return err
	}
	r.Bytes = info.Size()
	if r.SHA256, err = hashFile(f.Path); err != nil {
		return err
	}
	if r.Findings, err = f.NotFinite(); err != nil {
		return err
	}
	id, err := c.of(f)
	if err == nil {
		err = r.describe(id)
	} else if r.Unknown = err.Error(); c.Data == "" {
		err = nil
	}
	if err != nil {
		return usage(err)
	}
	switch r.Card, err = weights.LoadCard(c.File); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	}
	if c.Data != "" {
		model, err := id.Model()
		if err != nil {
			return usage(err)
		}
		if r.Clean, err = c.accuracy(ctx, g, model); err != nil {
			return err
		}
	}
	return r.show(g)
}

// onnx inspects an ONNX file, which says itself what it computes.
func (c *inspectCmd) onnx(ctx context.Context, g *globals) error {
	model, err := weights.Load(c.File)
	if err != nil {
		return usage(err)
	}
	info, err := os.Stat(c.File)
	if err != nil {
		return err
	}
	h, w, channels := model.Input()
	r := &inspection{File: c.File, Format: "ONNX", Bytes: info.Size(), DTypes: map[string]int{}, Network: &recognised{
		Model: model.Name(), Classes: model.Classes(), Input: [3]int{h, w, channels}, Parameters: classifier.Count(model.Network),
		Normalisation: "part of what the file computes, if any",
	}}
	if r.SHA256, err = hashFile(c.File); err != nil {
		return err
	}
	f := &weights.File{}
	for i, p := range model.Params() {
		t, err := weights.FromTensor(p.Name, model.State[i])
		if err != nil {
			return err
		}
		f.Tensors = append(f.Tensors, t)
	}
	r.count(f)
	if r.Findings, err = f.NotFinite(); err != nil {
		return err
	}
	if c.Data != "" {
		if r.Clean, err = c.accuracy(ctx, g, model); err != nil {
			return err
		}
	}
	return r.show(g)
}

// show prints the inspection and writes it where --json says.
func (r *inspection) show(g *globals) error {
	if g.JSON != "-" {
		if err := r.text(g.env.Stdout); err != nil {
			return err
		}
	}
	return g.writeJSON(r)
}

// count fills in how many tensors and values there are.
func (r *inspection) count(f *weights.File) {
	r.Tensors = len(f.Tensors)
	for _, t := range f.Tensors {
		r.DTypes[t.DType] += t.Count()
	}
}

// describe fills in what is known once the network is.
func (r *inspection) describe(id *weights.Identity) error {
	net := id.Network
	h, w, channels := net.Input()
	r.Prefix = id.Prefix
	n := &recognised{
		Model: net.Name(), Classes: net.Classes(), Input: [3]int{h, w, channels}, Normalisation: id.Normalisation,
		Parameters: classifier.Count(net), Idle: zoo.Idle(net), MACs: zoo.MACs(net), Assumed: id.Assumed, Unexpected: id.Unexpected,
	}
	var err error
	if n.Mean, n.Std, err = id.Constants(); err != nil {
		return err
	}
	for i, name := range id.Missing {
		p := pair{Name: name}
		if i < mismatchesShown { // to compare all names with all takes long
			p.Closest = id.Closest(name)
		}
		n.Missing = append(n.Missing, p)
	}
	for _, m := range id.Wrong {
		n.Wrong = append(n.Wrong, misfit{m.Name, m.Shape, m.Want})
	}
	r.Network = n
	odd, err := id.Oddities()
	r.Findings = append(r.Findings, odd...)
	return err
}

// accuracy measures the clean accuracy.
func (c *inspectCmd) accuracy(ctx context.Context, g *globals, model *classifier.Model) (*clean, error) {
	set, err := data.Open(c.Data, c.DataDir, data.Test, data.Options{})
	if err != nil {
		return nil, usage(explainData(err, c.DataDir))
	}
	set = set.Subset(c.Samples, g.seed())
	if err := eval.Fits(model.Network, set); err != nil {
		return nil, usage(err)
	}
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	defer backend.Finalize()
	scorer, err := eval.NewScorer(backend, model.Network, set, threat.Model{Epsilon: 1}, 0, g.seed())
	if err != nil {
		return nil, err
	}
	defer scorer.Finalize()
	rate, _, err := scorer.Score(ctx, model.State)
	if err != nil {
		return nil, err
	}
	low, high := rate.Wilson()
	return &clean{set.Name, rate.Total, rate.Value(), low, high}, nil
}

// text writes the inspection for people.
func (r *inspection) text(w io.Writer) error {
	t := &report.Table{Columns: []report.Column{{Name: "file"}, {Name: r.File}}}
	t.Add("format", fmt.Sprintf("%s, %s bytes", r.Format, report.Count(r.Bytes)))
	if r.Entry != "" || len(r.Others) > 0 {
		entry := r.Entry
		if entry == "" {
			entry = "the whole"
		}
		if len(r.Others) > 0 {
			entry += "; --entry takes " + strings.Join(r.Others, ", ")
		}
		t.Add("entry", entry)
	}
	var types []string
	for _, d := range slices.Sorted(maps.Keys(r.DTypes)) {
		types = append(types, fmt.Sprintf("%s values of %s", report.Count(int64(r.DTypes[d])), d))
	}
	t.Add("tensors", fmt.Sprintf("%d: %s", r.Tensors, strings.Join(types, ", ")))
	if n := r.Network; n != nil {
		n.rows(t, r.Prefix)
	} else {
		t.Add("network", "not recognised")
		t.Notes = append(t.Notes, r.Unknown)
	}
	for _, f := range r.Findings {
		t.Add("finding", f.What+": "+strings.Join(f.Where, ", "))
	}
	if len(r.Findings) == 0 && r.Network != nil {
		t.Add("findings", "none")
	}
	if c := r.Clean; c != nil {
		t.Add("clean accuracy", fmt.Sprintf("%s%% of %d images of %s test (95%% interval %s to %s)", report.Percent(c.Accuracy), c.Images, c.Data,
			report.Percent(c.Low), report.Percent(c.High)))
	}
	if r.Card != nil {
		t.Add("card", fmt.Sprintf("data %s, method %s, %d accuracies; adaad evaluate --check measures them again", orNone(r.Card.Data), orNone(r.Card.Method), len(r.Card.Accuracies)))
	}
	return t.Text(w)
}

// rows are what is known of the network.
func (n *recognised) rows(t *report.Table, prefix string) {
	t.Add("network", fmt.Sprintf("%s, %d classes, images of %dx%dx%d", n.Model, n.Classes, n.Input[0], n.Input[1], n.Input[2]))
	size := report.Count(int64(n.Parameters)) + " parameters"
	if n.MACs > 0 {
		size += ", " + report.Count(n.MACs) + " MACs an image"
	}
	if n.Idle > 0 {
		size += fmt.Sprintf("; %s of the parameters are in layers that it never runs", report.Count(int64(n.Idle)))
	}
	t.Add("size", size)
	switch {
	case n.Normalisation == "":
		t.Add("normalisation", "none inside: it takes images in [0,1] as they are")
	case n.Mean == nil:
		t.Add("normalisation", n.Normalisation)
	default:
		t.Add("normalisation", fmt.Sprintf("inside, mean %v, std %v: %s", n.Mean, n.Std, n.Normalisation))
	}
	if prefix != "" {
		t.Add("prefix", prefix+" on every name")
	}
	for _, a := range n.Assumed {
		t.Add("assumed", a)
	}
	mismatches := 0
	add := func(what, text string) {
		if mismatches++; mismatches <= mismatchesShown {
			t.Add(what, text)
		}
	}
	for _, m := range n.Missing {
		text := m.Name
		if m.Closest != "" {
			text += "; closest in the file: " + m.Closest
		}
		add("missing", text)
	}
	for _, m := range n.Wrong {
		add("wrong shape", fmt.Sprintf("%s is %v, expected %v", m.Name, m.Shape, m.Expected))
	}
	for _, name := range n.Unexpected {
		add("unexpected", name)
	}
	if mismatches > mismatchesShown {
		t.Notes = append(t.Notes, fmt.Sprintf("%d more tensors do not fit; --json lists them.", mismatches-mismatchesShown))
	}
	if mismatches > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("%d tensors are missing, %d unexpected, %d wrongly shaped: it cannot be used as a %s.",
			len(n.Missing), len(n.Unexpected), len(n.Wrong), n.Model))
	}
}

// mismatchesShown is how many tensors that do not fit are listed on a terminal.
const mismatchesShown = 24

func orNone(text string) string {
	if text == "" {
		return "not said"
	}
	return text
}
