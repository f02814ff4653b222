package onnx_test

import (
	"testing"

	"github.com/adaad-go/adaad/weights/onnx"
)

func TestINT8InONNXRuntime(t *testing.T) {
	module := onnxruntime(t)
	pixels := cifar(t, 1000)
	m := model(t, "resnet20", [3]int{32, 32, 3})
	f, err := onnx.Quantize(backend, m, random("calibration", 64*32*32*3), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := save(t, f)
	q, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	differ(t, "int8 here and in ONNX Runtime", ours(t, q, pixels), theirs(t, module, path, pixels, [3]int{32, 32, 3}), 1)
	differ(t, "int8 and float32", ours(t, q, pixels), ours(t, m, pixels), 1)
}
