package weights

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/weights/onnx"
)

// ONNXExtension ends the names of ONNX files, which are told by it: their content starts like nothing in particular.
const ONNXExtension = ".onnx"

// IsONNX tells an ONNX file by its name.
func IsONNX(path string) bool { return strings.EqualFold(filepath.Ext(path), ONNXExtension) }

// cardKey is where an ONNX file's metadata has the card.
const cardKey = "adaad.card"

// Metadata is the card as metadata of an ONNX file.
func (c Card) Metadata() (map[string]string, error) {
	text, err := json.Marshal(c)
	return map[string]string{cardKey: string(text)}, err
}

// SaveONNX writes an ONNX file whole or not at all.
func SaveONNX(path string, f *onnx.File) error {
	return WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(f.Marshal())
		return err
	})
}

// onnxCard is the card in an ONNX file's metadata.
func onnxCard(path string) (*Card, error) {
	f, err := onnx.Read(path)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(f.Metadata, func(e onnx.Entry) bool { return e.Key == cardKey })
	if i < 0 {
		return nil, fmt.Errorf("%s has no card: %w", path, fs.ErrNotExist)
	}
	c := new(Card)
	if err := json.Unmarshal([]byte(f.Metadata[i].Value), c); err != nil {
		return nil, fmt.Errorf("%s: metadata %q is no model card: %w", path, cardKey, err)
	}
	return c, nil
}
