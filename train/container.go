package train

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

func writeTensors(path string, meta map[string]string, all map[string]*tensors.Tensor) error {
	header := map[string]any{"__metadata__": meta}
	names := slices.Sorted(maps.Keys(all))
	at := int64(0)
	for _, name := range names {
		end := at + all[name].ByteSize()
		header[name] = entry{"F32", append([]int{}, all[name].Shape().Dimensions...), [2]int64{at, end}}
		at = end
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return writeFile(path, func(w io.Writer) error {
		if err := binary.Write(w, binary.LittleEndian, uint64(len(text))); err != nil {
			return err
		}
		_, err := w.Write(text)
		for _, name := range names {
			e := all[name].ConstBytes(func(b []byte) {
				if err == nil {
					_, err = w.Write(b)
				}
			})
			err = errors.Join(err, e)
		}
		return err
	})
}

func readTensors(path string) (map[string]string, map[string]*tensors.Tensor, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	if len(raw) < 8 || binary.LittleEndian.Uint64(raw) > uint64(len(raw)-8) {
		return nil, nil, fmt.Errorf("it has %d bytes, too few for its header", len(raw))
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		return nil, nil, fmt.Errorf("its header cannot be read: %w", err)
	}
	body := raw[8+n:]
	meta, all := map[string]string{}, map[string]*tensors.Tensor{}
	for name, text := range header {
		if name == "__metadata__" {
			err = json.Unmarshal(text, &meta)
		} else {
			var e entry
			if err = json.Unmarshal(text, &e); err == nil {
				size := int64(1)
				for _, d := range e.Shape {
					if d <= 0 || size > int64(len(body)) {
						return nil, nil, fmt.Errorf("its tensor %s has shape %v", name, e.Shape)
					}
					size *= int64(d)
				}
				if e.DType != "F32" || e.Offsets[0] < 0 || e.Offsets[1] > int64(len(body)) || e.Offsets[1]-e.Offsets[0] != 4*size {
					return nil, nil, fmt.Errorf("its tensor %s is not where the header says", name)
				}
				t := tensors.FromShape(shapes.Make(dtypes.Float32, e.Shape...))
				t.MutableBytes(func(b []byte) { copy(b, body[e.Offsets[0]:e.Offsets[1]]) })
				all[name] = t
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("its header cannot be read: %w", err)
		}
	}
	return meta, all, nil
}
