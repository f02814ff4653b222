package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func idx(magic uint32, dims []uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magic)
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, body...)
}

func idxImages(n int) []byte {
	body := make([]byte, n*784)
	for i := range body {
		body[i] = uint8(i * 31 / 7)
	}
	return idx(0x803, []uint32{uint32(n), 28, 28}, body)
}

func idxLabels(labels ...uint8) []byte { return idx(0x801, []uint32{uint32(len(labels))}, labels) }

func zipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func TestMNIST(t *testing.T) {
	images := idxImages(3)
	for _, sub := range []string{"", "mnist"} {
		for _, gz := range []bool{false, true} {
			dir, ext, pack := t.TempDir(), "", func(b []byte) []byte { return b }
			if gz {
				ext, pack = ".gz", zipped
			}
			write(t, pack(images), dir, sub, "train-images-idx3-ubyte"+ext)
			write(t, pack(idxLabels(7, 0, 9)), dir, sub, "train-labels-idx1-ubyte"+ext)
			s, err := Open("mnist", dir, Train, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Height != 28 || s.Width != 28 || s.Channels != 1 || !bytes.Equal(s.Pixels, images[16:]) ||
				!slices.Equal(s.Labels, []int{7, 0, 9}) || !slices.Equal(s.Index, count(3)) {
				t.Errorf("in %q, gz %v: %d images, labels %v", sub, gz, s.Len(), s.Labels)
			}
			if _, err := MNIST(dir, Test); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "t10k-images-idx3-ubyte") {
				t.Errorf("without test files: %v", err)
			}
		}
	}
}

func TestMNISTRefuses(t *testing.T) {
	images, labels := idxImages(2), idxLabels(1, 2)
	edit := func(b []byte, at int, v byte) []byte {
		b = slices.Clone(b)
		b[at] = v
		return b
	}
	gz := zipped(images)
	huge := idx(0x803, []uint32{1 << 31, 28, 28}, nil)
	for _, c := range []struct {
		name           string
		images, labels []byte
		want           string
	}{
		{"empty", nil, labels, "images-idx3-ubyte: offset 0: the file ends inside its header, expected 16 bytes"},
		{"page", []byte(page), labels, "offset 0: a web page"},
		{"magic", edit(images, 3, 1), labels, "offset 0: starts with 0x00000801, expected 0x00000803"},
		{"height", edit(images, 11, 29), labels, "offset 8: items have size 29 in dimension 1, expected 28"},
		{"width", edit(images, 15, 29), labels, "offset 12: items have size 29 in dimension 2, expected 28"},
		{"none", idxImages(0), idxLabels(), "offset 4: the header says 0 items"},
		{"truncated", images[:1000], labels, "offset 4: the header says 2 items of 784 bytes"},
		{"more than it says", append(slices.Clone(images), 0), labels, "offset 1584: more data after the 2 items"},
		{"a lie", huge, labels, "offset 4: the header says 2147483648 items"},
		{"a packed lie", zipped(huge), labels, "offset 4: the header says 2147483648 items"},
		{"a smaller packed lie", zipped(append(idx(0x803, []uint32{3, 28, 28}, nil), images[16:]...)), labels, "offset 1584: the data ends or cannot be read here, expected 3 items"},
		{"a bomb", zipped(append(slices.Clone(images), make([]byte, 1<<22)...)), labels, "offset 1584: more data after the 2 items"},
		{"gzip header", gz[:5], labels, "offset 0: not a whole gzip header"},
		{"truncated gzip", gz[:len(gz)/2], labels, "the data ends or cannot be read here, expected 2 items"},
		{"gzip checksum", edit(gz, len(gz)-6, gz[len(gz)-6]^1), labels, "offset 1584: expected the end of the file: gzip: invalid checksum"},
		{"label", images, idxLabels(1, 10), "labels-idx1-ubyte: offset 9: class 10, expected 0 to 9"},
		{"label count", images, idxLabels(1, 2, 3), "labels-idx1-ubyte: 3 labels, expected 2"},
	} {
		dir := t.TempDir()
		write(t, c.images, dir, "t10k-images-idx3-ubyte")
		write(t, c.labels, dir, "t10k-labels-idx1-ubyte")
		_, err := MNIST(dir, Test)
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "t10k-")) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want the file and %q", c.name, err, c.want)
		}
	}
}

func FuzzIDX(f *testing.F) {
	f.Add(idxImages(2), true)
	f.Add(idxLabels(1, 2, 3), false)
	f.Add(zipped(idxImages(1)), true)
	f.Add(zipped(idxLabels(4)), false)
	f.Add(zipped(idxImages(1))[:40], true)
	f.Add(idx(0x803, []uint32{1 << 31, 28, 28}, nil), true)
	f.Add([]byte(page), false)
	f.Fuzz(func(t *testing.T, b []byte, images bool) {
		var shape []int
		item := 1
		if images {
			shape, item = []int{28, 28}, 784
		}
		got, err := parseIDX("fuzz", bytes.NewReader(b), int64(len(b)), shape)
		if err != nil {
			return
		}
		if len(got) == 0 || len(got)%item != 0 || len(got) > deflateRatio*len(b) {
			t.Fatalf("%d bytes from %d", len(got), len(b))
		}
	})
}
