package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/weights"
)

type exportCmd struct {
	File   string `arg:"" help:"Model file or run folder."`
	Format string `help:"What to write: safetensors or pytorch-names." enum:"safetensors,pytorch-names" default:"safetensors"`
	Out    string `help:"File to write." placeholder:"FILE" required:""`
	DType  string `name:"dtype" help:"Values of the weights: f32, f16 or bf16." enum:"f32,f16,bf16" default:"f32"`
}

func (exportCmd) Help() string {
	return `safetensors is this program's own format: every command takes it, and load_state_dict too if the network does not
normalise its images. pytorch-names is what load_state_dict of RobustBench's modules takes: a state dict as torch.save
writes it if --out ends in .pt or .pth, else as safetensors.

Examples:
  adaad export runs/student --out student.safetensors --dtype f16
  adaad export runs/student --format pytorch-names --out student.pt`
}

func (c *exportCmd) Run(g *globals) error {
	model, err := g.load(c.File)
	if err != nil {
		return usage(err)
	}
	dtype := strings.ToUpper(c.DType)
	switch c.Format {
	case "safetensors":
		if err := hasExtension("--out", c.Out, ".safetensors"); err != nil {
			return err
		}
		card, err := weights.LoadCard(c.File)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			card = &weights.Card{Version: g.env.Version}
		case err != nil:
			return err
		}
		if c.DType != "f32" {
			card.Accuracies = nil // they are those of other values
		}
		err = weights.SaveAs(c.Out, model, dtype, *card)
		if err != nil {
			return err
		}
	case "pytorch-names":
		if err := hasExtension("--out", c.Out, ".pt", ".pth", ".safetensors"); err != nil {
			return err
		}
		if err := weights.ExportPyTorch(c.Out, model, dtype); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(g.env.Stdout, "%s is in %s\n", model.Name(), c.Out)
	return err
}

// hasExtension refuses a file that would be taken for one of another format.
func hasExtension(flag, path string, expected ...string) error {
	if slices.ContainsFunc(expected, func(e string) bool { return strings.HasSuffix(path, e) }) {
		return nil
	}
	return usage(fmt.Errorf("%s is %s, expected a name that ends in %s", flag, path, strings.Join(expected, " or ")))
}
