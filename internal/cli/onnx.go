package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/weights/onnx"
)

// onnxFlags are those of adaad export that ONNX files alone have.
type onnxFlags struct {
	KeepBatchNorm bool   `help:"onnx: write batch norms as nodes of their own; else they are folded into the convolutions before them."`
	INT8          bool   `name:"int8" help:"onnx: quantise, calibrated on training images of --data."`
	Data          string `help:"int8: data set to calibrate on; by default the one the model was trained on." placeholder:"NAME"`
	DataDir       string `help:"int8: folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Samples       int    `help:"int8: calibrate on so many of the images that training held out." default:"512" placeholder:"N"`
}

// write writes a model as ONNX, in int8 if that is asked for.
func (o onnxFlags) write(g *globals, path string, model *classifier.Model, card weights.Card) error {
	h, w, c := model.Input()
	card.Model, card.Input = model.Name(), [3]int{h, w, c}
	if o.INT8 {
		card.Accuracies = nil // they are those of other values
	}
	metadata, err := card.Metadata()
	if err != nil {
		return err
	}
	options := onnx.Options{KeepBatchNorm: o.KeepBatchNorm, Metadata: metadata, Version: g.env.Version}
	var f *onnx.File
	if o.INT8 {
		f, err = o.quantize(g, model, card, options)
	} else {
		f, err = onnx.Export(model, options)
	}
	if err != nil {
		return err
	}
	return weights.SaveONNX(path, f)
}

func (o onnxFlags) quantize(g *globals, model *classifier.Model, card weights.Card, options onnx.Options) (*onnx.File, error) {
	if o.KeepBatchNorm {
		return nil, usage(errors.New("--int8 folds batch norms, which --keep-batch-norm forbids"))
	}
	set, of, err := o.calibration(card)
	if err != nil {
		return nil, usage(err)
	}
	if h, w, c := model.Input(); set.Height != h || set.Width != w || set.Channels != c {
		return nil, usage(fmt.Errorf("--data: %s has images of %dx%dx%d, %s takes %dx%dx%d", set.Name, set.Height, set.Width, set.Channels, model.Name(), h, w, c))
	}
	pixels := make([]float32, len(set.Pixels))
	for i, v := range set.Pixels {
		pixels[i] = float32(v) / 255
	}
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	defer backend.Finalize()
	options.Metadata["adaad.int8"] = fmt.Sprintf("calibrated on %d %s of %s", set.Len(), of, set.Name)
	return onnx.Quantize(backend, model, pixels, options)
}

// calibration is a class-balanced part of the training images: of those that were held out, if the card says which.
func (o onnxFlags) calibration(card weights.Card) (set *data.Set, of string, err error) {
	if o.Data == "" {
		o.Data = card.Data
	}
	switch {
	case o.Data == "":
		return nil, "", errors.New("--data is missing, and the model has no card that names the data it was trained on")
	case o.Samples < 1:
		return nil, "", fmt.Errorf("--samples is %d, expected at least 1", o.Samples)
	}
	set, err = data.Open(o.Data, o.DataDir, data.Train, data.Options{})
	if err != nil {
		return nil, "", explainData(err, o.DataDir)
	}
	of = "training images"
	if o.Data == card.Data && card.HeldOut > 0 {
		of = weights.HeldOutImages
		_, set = set.HoldOut(card.HeldOut, card.Seed)
	}
	return set.Subset(o.Samples, card.Seed), of, nil
}

// cardOf is a model's card, or an empty one of this version.
func cardOf(g *globals, path string) (weights.Card, error) {
	card, err := weights.LoadCard(path)
	if errors.Is(err, fs.ErrNotExist) {
		return weights.Card{Version: g.env.Version}, nil
	}
	if err != nil {
		return weights.Card{}, err
	}
	return *card, nil
}
