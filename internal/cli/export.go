package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

type exportCmd struct {
	File   string `arg:"" help:"Model file or run folder."`
	Format string `help:"What to write: safetensors, onnx or pytorch-names." enum:"safetensors,onnx,pytorch-names" default:"safetensors"`
	Out    string `help:"File to write." placeholder:"FILE" required:""`
	DType  string `name:"dtype" help:"Values of the weights: f32, f16 or bf16." enum:"f32,f16,bf16" default:"f32"`
	onnxFlags
}

func (exportCmd) Help() string {
	return `safetensors is this program's own format: every command takes it, and load_state_dict too if the network does not
normalise its images. pytorch-names is what load_state_dict of RobustBench's modules takes: a state dict as torch.save
writes it if --out ends in .pt or .pth, else as safetensors. onnx runs in ONNX Runtime: images [N,C,H,W] in [0,1] in, logits out.

Examples:
  adaad export runs/student --out student.safetensors --dtype f16
  adaad export runs/student --format pytorch-names --out student.pt
  adaad export runs/student --format onnx --out student.onnx
  adaad export runs/student --format onnx --int8 --data-dir data --out student-int8.onnx`
}

func (c *exportCmd) Run(g *globals) error {
	model, err := g.load(c.File)
	if err != nil {
		return usage(err)
	}
	if zoo.Layers(model.Network) == nil {
		return usage(fmt.Errorf("%s is an ONNX file; what it holds is written in no other format", c.File))
	}
	card, err := cardOf(g, c.File)
	if err != nil {
		return err
	}
	if c.Format != "onnx" && (c.INT8 || c.KeepBatchNorm) {
		return usage(fmt.Errorf("--int8 and --keep-batch-norm need --format onnx, found %s", c.Format))
	}
	dtype := strings.ToUpper(c.DType)
	switch c.Format {
	case "onnx":
		if err := hasExtension("--out", c.Out, weights.ONNXExtension); err != nil {
			return err
		}
		if dtype != "F32" {
			return usage(fmt.Errorf("--dtype is %s, expected f32: ONNX files are written in float32 or, with --int8, in int8", c.DType))
		}
		if err := c.write(g, c.Out, model, card); err != nil {
			return err
		}
	case "safetensors":
		if err := hasExtension("--out", c.Out, ".safetensors"); err != nil {
			return err
		}
		if c.DType != "f32" {
			card.Accuracies = nil // they are those of other values
		}
		err = weights.SaveAs(c.Out, model, dtype, card)
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
