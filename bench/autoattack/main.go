// The program autoattack times the AutoAttack evaluation of this project against the authors' own on PyTorch: the same
// weights, images, radius and number of threads, one after the other in turn. It prints how many images stand after each
// attack of either, and the ratio of every pair.
//
//	git clone https://github.com/fra31/auto-attack
//	go run ./bench/autoattack --original auto-attack --model runs/student --data-dir data --images 256 --pairs 3
//
// It needs a Python with PyTorch. The model is a CIFAR ResNet (resnet8 to resnet56, resnet18, resnet34, of any width).
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/gomlx/core/tensors"
)

//go:embed original.py
var script []byte

type options struct {
	original, python, model, set, dataDir, norm, eps, version string
	images, pairs, threads, batch                             int
}

func main() {
	var o options
	flag.StringVar(&o.original, "original", "", "folder of the authors' code, which holds the package autoattack")
	flag.StringVar(&o.python, "python", "python3", "a Python with PyTorch")
	flag.StringVar(&o.model, "model", "", "model file or run folder")
	flag.StringVar(&o.set, "data", "cifar10", "data set")
	flag.StringVar(&o.dataDir, "data-dir", "", "folder the data set is in")
	flag.StringVar(&o.norm, "norm", "Linf", "Linf or L2")
	flag.StringVar(&o.eps, "eps", "8/255", "radius")
	flag.StringVar(&o.version, "version", "standard", "ensemble: standard, plus or rand")
	flag.IntVar(&o.images, "images", 256, "the first so many test images")
	flag.IntVar(&o.pairs, "pairs", 3, "how often both are timed")
	flag.IntVar(&o.threads, "threads", runtime.NumCPU(), "threads of either")
	flag.IntVar(&o.batch, "original-batch", 250, "the original's batch size; 250 is its own choice")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "autoattack:", err)
		os.Exit(1)
	}
}

// outcome is one evaluation: how long it took, and how many images were right and stood after each attack.
type outcome struct {
	Seconds float64 `json:"seconds"`
	Clean   int     `json:"clean"`
	Stages  []stage `json:"stages"`
}

// stage is what is known once an attack is done. Here attacks on different images overlap, and only the last has a time.
type stage struct {
	Name     string  `json:"name"`
	Standing int     `json:"standing"`
	Seconds  float64 `json:"seconds"` // since the start; 0 is unknown
}

func (o outcome) String() string {
	text := fmt.Sprintf("%.1fs: clean %d", o.Seconds, o.Clean)
	for _, s := range o.Stages {
		text += fmt.Sprintf(", %s %d", s.Name, s.Standing)
		if s.Seconds > 0 {
			text += fmt.Sprintf(" at %.1fs", s.Seconds)
		}
	}
	return text
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.original == "" || o.model == "" {
		return errors.New("--original and --model are needed; see --help")
	}
	if o.pairs < 1 || o.images < 1 {
		return fmt.Errorf("--pairs is %d and --images is %d, expected at least 1 of each", o.pairs, o.images)
	}
	eps, err := threat.Parse(o.eps)
	if err != nil {
		return fmt.Errorf("--eps: %w", err)
	}
	norm, ok := map[string]threat.Norm{"Linf": threat.Linf, "L2": threat.L2}[o.norm]
	if !ok {
		return fmt.Errorf("--norm is %q, expected Linf or L2", o.norm)
	}
	ensemble, ok := map[string]func(threat.Norm, float64) attack.Suite{
		"standard": attack.AutoAttack, "plus": attack.AutoAttackPlus, "rand": attack.AutoAttackRand,
	}[o.version]
	if !ok {
		return fmt.Errorf("--version is %q, expected standard, plus or rand", o.version)
	}
	model, err := weights.Load(o.model)
	if err != nil {
		return fmt.Errorf("--model: %w", err)
	}
	set, err := data.Open(o.set, o.dataDir, data.Test, data.Options{})
	if err != nil {
		return err
	}
	set = first(set, o.images)
	dir, err := os.MkdirTemp("", "autoattack")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := handOver(dir, model, set); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %d images of %s test, %s eps %s, %s, %d threads\n",
		model.Name(), set.Len(), set.Name, o.norm, o.eps, o.version, o.threads)
	var ratios []float64
	for pair := range o.pairs {
		ours, err := here(ctx, model, set, norm, eps, ensemble(norm, eps), o.threads)
		if err != nil {
			return err
		}
		theirs, err := there(ctx, dir, o, eps)
		if err != nil {
			return err
		}
		ratio := theirs.Seconds / ours.Seconds
		ratios = append(ratios, ratio)
		fmt.Fprintf(out, "pair %d\n  here     %s\n  original %s\n  ratio    %.2f\n", pair+1, ours, theirs, ratio)
	}
	slices.Sort(ratios)
	middle := len(ratios) / 2
	fmt.Fprintf(out, "median ratio %.2f of %d pairs\n", (ratios[middle]+ratios[(len(ratios)-1)/2])/2, len(ratios))
	return nil
}

// first are the first n images of a set.
func first(s *data.Set, n int) *data.Set {
	n = min(n, s.Len())
	head := *s
	head.Pixels, head.Labels, head.Index = s.Pixels[:n*s.ImageSize()], s.Labels[:n], s.Index[:n]
	return &head
}

// here evaluates with this project; everything but opening the files is timed.
func here(ctx context.Context, m *classifier.Model, set *data.Set, norm threat.Norm, eps float64, suite attack.Suite, threads int) (outcome, error) {
	backend, err := vec.New(fmt.Sprint("threads=", threads))
	if err != nil {
		return outcome{}, err
	}
	defer backend.Finalize()
	fresh := &classifier.Model{Network: m.Network} // a tensor stays with the backend that it was used on
	for _, t := range m.State {
		clone, err := t.LocalClone()
		if err != nil {
			return outcome{}, err
		}
		fresh.State = append(fresh.State, clone)
	}
	r, err := eval.Run(ctx, backend, eval.Evaluation{Model: fresh, Set: set, Norm: norm, Epsilon: eps, Suites: []attack.Suite{suite}})
	if err != nil {
		return outcome{}, err
	}
	after := append(r.Stages(0), r.Accuracies()[1])
	o := outcome{Seconds: r.Elapsed.Seconds(), Clean: r.Accuracies()[0].Hits}
	for i, a := range suite.Attacks {
		o.Stages = append(o.Stages, stage{Name: a.Name(), Standing: after[i].Hits})
	}
	return o, nil
}

// handOver writes what the script reads: every parameter and the images as float32 in little endian, in PyTorch's layout,
// and what they are.
func handOver(dir string, m *classifier.Model, set *data.Set) error {
	type entry struct {
		Name  string `json:"name"`
		Shape []int  `json:"shape"`
	}
	var what struct {
		State  []entry `json:"state"`
		Shape  [4]int  `json:"shape"`
		Labels []int   `json:"labels"`
	}
	var values bytes.Buffer
	for i, p := range m.Params() {
		what.State = append(what.State, entry{p.Name, p.Shape})
		flat, err := tensors.CopyFlatData[float32](m.State[i])
		if err != nil {
			return err
		}
		if err := binary.Write(&values, binary.LittleEndian, flat); err != nil {
			return err
		}
	}
	what.Shape = [4]int{set.Len(), set.Channels, set.Height, set.Width}
	what.Labels = set.Labels
	pixels := make([]float32, set.ImageSize())
	planes := make([]float32, set.ImageSize())
	for i := range set.Len() {
		data.Floats(pixels, set.Image(i))
		for p, v := range pixels {
			planes[p%set.Channels*set.Height*set.Width+p/set.Channels] = v
		}
		if err := binary.Write(&values, binary.LittleEndian, planes); err != nil {
			return err
		}
	}
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "original.py"), script, 0o600),
		os.WriteFile(filepath.Join(dir, "values"), values.Bytes(), 0o600),
		os.WriteFile(filepath.Join(dir, "what.json"), text, 0o600))
}

// there evaluates with the authors' code, which times itself.
func there(ctx context.Context, dir string, o options, eps float64) (outcome, error) {
	cmd := exec.CommandContext(ctx, o.python, filepath.Join(dir, "original.py"), o.original, dir, o.norm,
		fmt.Sprint(eps), o.version, fmt.Sprint(o.threads), fmt.Sprint(o.batch))
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return outcome{}, fmt.Errorf("%s: %w", strings.Join(cmd.Args[:2], " "), err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var result outcome
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil {
		return outcome{}, fmt.Errorf("the original's last line is %q, expected its result: %w", lines[len(lines)-1], err)
	}
	return result, nil
}
