// Package weights reads and writes weights: safetensors files, and models saved in them under PyTorch's names with a
// card that says what they are. Nothing read from a file is ever executed, and memory is bounded by the file's size.
package weights

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Tensor is a named array of little-endian values, row-major.
type Tensor struct {
	Name  string
	DType string // safetensors' name: F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL, ...
	Shape []int
	Data  []byte
}

// Count is how many values the tensor has.
func (t Tensor) Count() int { return count(t.Shape) }

func count(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// File is the content of a file of weights.
type File struct {
	Path     string   // where it was read
	Format   string   // Safetensors, PyTorchZip or PyTorchLegacy
	Tensors  []Tensor // of safetensors in the order of their data, of PyTorch in that of their names
	Metadata map[string]string
	// Entry is the part of a PyTorch checkpoint that the tensors are from, such as "state_dict", empty where they are the
	// whole. Others are its parts that hold tensors too.
	Entry  string
	Others []string
}

// sizes are the bytes of one value of each type.
var sizes = map[string]int{
	"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}

const (
	metadataKey = "__metadata__"
	checksumKey = "sha256"  // of all that follows the header
	maxHeader   = 100 << 20 // as in the reference implementation
)

type entry struct {
	DType   string  `json:"dtype"`
	Shape   []int   `json:"shape"`
	Offsets []int64 `json:"data_offsets"` // first byte and the one after the last
}

// Write writes a safetensors file, whole or not at all, with a SHA-256 of its data in the metadata. Tensors are laid
// out in the given order, each name once.
func Write(path string, f *File) error {
	header := map[string]any{}
	sum := sha256.New()
	var at int64
	for _, t := range f.Tensors {
		if err := t.validate(); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		if _, twice := header[t.Name]; twice || t.Name == metadataKey {
			return fmt.Errorf("writing %s: tensor name %q is taken", path, t.Name)
		}
		end := at + int64(len(t.Data))
		header[t.Name] = entry{t.DType, append([]int{}, t.Shape...), []int64{at, end}}
		at = end
		sum.Write(t.Data)
	}
	metadata := map[string]string{}
	maps.Copy(metadata, f.Metadata)
	metadata[checksumKey] = hex.EncodeToString(sum.Sum(nil))
	header[metadataKey] = metadata
	text, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ') // the data starts aligned
	}
	err = WriteFile(path, func(w io.Writer) error {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(text)))
		if _, err := w.Write(append(size[:], text...)); err != nil {
			return err
		}
		for _, t := range f.Tensors {
			if _, err := w.Write(t.Data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// validate checks that the tensor's type is known and that its data is what its type and shape take.
func (t Tensor) validate() error {
	n, err := byteCount(t.DType, t.Shape)
	if err == nil && n != int64(len(t.Data)) {
		err = fmt.Errorf("shape %v of %s takes %d bytes, found %d", t.Shape, t.DType, n, len(t.Data))
	}
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return nil
}

// byteCount is how many bytes a type and a shape take.
func byteCount(dtype string, shape []int) (int64, error) {
	size, known := sizes[dtype]
	if !known {
		return 0, fmt.Errorf("dtype is %q, expected one of %v", dtype, slices.Sorted(maps.Keys(sizes)))
	}
	n := int64(size)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d > 0 && n > (1<<62)/int64(d) {
			return 0, fmt.Errorf("shape %v is too large for any file", shape)
		}
		n *= int64(d)
	}
	return n, nil
}

// Parse reads a safetensors file from memory; the tensors share that memory.
func Parse(raw []byte) (*File, error) {
	if len(raw) < 8 {
		return nil, fmt.Errorf("at byte %d: the file ends, expected 8 bytes with the header's size", len(raw))
	}
	if err := strange(raw); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint64(raw)
	if size > maxHeader || size > uint64(len(raw)-8) {
		return nil, fmt.Errorf("at byte 0: the header is said to have %d bytes, but %d follow", size, len(raw)-8)
	}
	text, body := raw[8:8+size], raw[8+size:]
	entries, metadata, err := parseHeader(text)
	if err != nil {
		return nil, err
	}
	f := &File{Format: Safetensors, Metadata: metadata, Tensors: make([]Tensor, 0, len(entries))}
	var at int64 // the data must be covered without gaps or overlaps
	for _, e := range entries {
		n, err := byteCount(e.DType, e.Shape)
		switch {
		case err != nil:
			return nil, fmt.Errorf("at byte %d: tensor %q: %w", e.place, e.name, err)
		case e.Offsets[0] != at:
			return nil, fmt.Errorf("at byte %d: tensor %q starts at byte %d of the data, expected %d (no gap, no overlap)", e.place, e.name, e.Offsets[0], at)
		case e.Offsets[1] < at || e.Offsets[1]-at != n:
			return nil, fmt.Errorf("at byte %d: tensor %q has bytes %d to %d of the data, but shape %v of %s takes %d",
				e.place, e.name, e.Offsets[0], e.Offsets[1], e.Shape, e.DType, n)
		case e.Offsets[1] > int64(len(body)):
			return nil, fmt.Errorf("at byte %d: the file ends inside tensor %q, which goes on to byte %d", len(raw), e.name, 8+int64(size)+e.Offsets[1])
		}
		f.Tensors = append(f.Tensors, Tensor{Name: e.name, DType: e.DType, Shape: e.Shape, Data: body[at:e.Offsets[1]:e.Offsets[1]]})
		at = e.Offsets[1]
	}
	if at != int64(len(body)) {
		return nil, fmt.Errorf("at byte %d: %d bytes follow the last tensor, expected none", 8+int64(size)+at, int64(len(body))-at)
	}
	if want, has := metadata[checksumKey]; has {
		if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != want {
			return nil, fmt.Errorf("from byte %d on: the data does not match its checksum", 8+size)
		}
		delete(metadata, checksumKey)
	}
	return f, nil
}

type placed struct {
	entry
	name  string
	place int64 // in the file
}

// parseHeader reads the header token by token: that finds names given twice and says where an error is.
func parseHeader(text []byte) ([]placed, map[string]string, error) {
	metadata := map[string]string{}
	var entries []placed
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	bad := func(err error) error {
		return fmt.Errorf("at byte %d: the header is not what it should be: %w", 8+d.InputOffset(), err)
	}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, bad(cmp.Or(err, fmt.Errorf("found %v, expected {", t)))
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, bad(err)
		}
		name, place := t.(string), 8+d.InputOffset()
		if seen[name] {
			return nil, nil, bad(fmt.Errorf("%q is there twice", name))
		}
		seen[name] = true
		if name == metadataKey {
			if err := d.Decode(&metadata); err != nil {
				return nil, nil, bad(err)
			}
			continue
		}
		e := placed{name: name, place: place}
		if err := d.Decode(&e.entry); err != nil {
			return nil, nil, bad(fmt.Errorf("tensor %q: %w", name, err))
		}
		if e.Shape == nil || len(e.Offsets) != 2 {
			return nil, nil, bad(fmt.Errorf("tensor %q has shape %v and data_offsets %v, expected a list and a pair", name, e.Shape, e.Offsets))
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, bad(err)
	}
	if rest := bytes.TrimRight(text[d.InputOffset():], " \n\r\t\x00"); len(rest) > 0 {
		return nil, nil, bad(errors.New("something follows the closing brace"))
	}
	slices.SortStableFunc(entries, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]))
	})
	return entries, metadata, nil
}
