package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	mnistSide = 28
	// deflateRatio is the most that DEFLATE can compress: 258 bytes in two bits.
	deflateRatio = 1032
)

// MNIST reads a split of MNIST (LeCun, Cortes and Burges), or of a set in the same form, from its IDX files:
// train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-*, as they are or with .gz, in dir or dir/mnist. The images
// are 28x28 with one channel; files may hold any number of them.
func MNIST(dir string, split Split) (*Set, error) {
	prefix := "train"
	if split == Test {
		prefix = "t10k"
	}
	images := prefix + "-images-idx3-ubyte"
	dir, err := find(dir, "mnist", images, images+".gz")
	if err != nil {
		return nil, fmt.Errorf("mnist: %w", err)
	}
	s := &Set{
		Name: "mnist", Height: mnistSide, Width: mnistSide, Channels: 1,
		Classes: strings.Fields("0 1 2 3 4 5 6 7 8 9"),
	}
	pixels, err := readIDX(filepath.Join(dir, images), mnistSide, mnistSide)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, prefix+"-labels-idx1-ubyte")
	labels, err := readIDX(path)
	if err != nil {
		return nil, err
	}
	if got, want := len(labels), len(pixels)/s.ImageSize(); got != want {
		return nil, fmt.Errorf("%s: %d labels, expected %d, one for each image of %s", path, got, want, images)
	}
	s.Pixels = pixels
	s.Labels = make([]int, len(labels))
	for i, class := range labels {
		if int(class) >= len(s.Classes) {
			return nil, fmt.Errorf("%s: offset %d: class %d, expected 0 to %d", path, 8+i, class, len(s.Classes)-1)
		}
		s.Labels[i] = int(class)
	}
	s.Index = count(len(labels))
	return s, nil
}

// readIDX reads path, or path with .gz if there is no such file: bytes of shape (N, shape...).
func readIDX(path string, shape ...int) ([]byte, error) {
	if !exists(path) {
		path += ".gz"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mnist: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("mnist: %w", err)
	}
	return parseIDX(path, f, info.Size(), shape)
}

// parseIDX reads a file of so many bytes that holds unsigned bytes of shape (N, shape...), with at least one item. An IDX
// file is two zeros, 8 for unsigned bytes, the number of dimensions, each of them in 32 bits, most significant byte
// first, and the data. A .gz is told by its content. Offsets in errors count uncompressed bytes.
func parseIDX(path string, file io.Reader, size int64, shape []int) ([]byte, error) {
	in := bufio.NewReader(file)
	start, _ := in.Peek(256)
	if isHTML(start) {
		return nil, fmt.Errorf("%s: offset 0: a web page where an IDX file was expected", path)
	}
	var r io.Reader = in
	limit := size
	if bytes.HasPrefix(start, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%s: offset 0: not a whole gzip header: %w", path, err)
		}
		r, limit = z, size*deflateRatio
	}

	header := make([]byte, 4*(2+len(shape)))
	if n, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("%s: offset %d: the file ends inside its header, expected %d bytes: %w", path, n, len(header), err)
	}
	if magic, want := binary.BigEndian.Uint32(header), uint32(0x801+len(shape)); magic != want {
		return nil, fmt.Errorf("%s: offset 0: starts with %#08x, expected %#08x: IDX, unsigned bytes, %d dimensions",
			path, magic, want, 1+len(shape))
	}
	item := int64(1)
	for k, want := range shape {
		if got := binary.BigEndian.Uint32(header[8+4*k:]); int64(got) != int64(want) {
			return nil, fmt.Errorf("%s: offset %d: items have size %d in dimension %d, expected %d", path, 8+4*k, got, k+1, want)
		}
		item *= int64(want)
	}
	n := int64(binary.BigEndian.Uint32(header[4:]))
	// What the header promises is read only if a file of this size can hold it, and stored only as it turns up.
	if want := n * item; n == 0 || want > limit-int64(len(header)) {
		return nil, fmt.Errorf("%s: offset 4: the header says %d items of %d bytes, more than 0 and no more than the file's %d bytes can hold were expected",
			path, n, item, size)
	}
	var body bytes.Buffer
	got, err := io.CopyN(&body, r, n*item)
	if err != nil {
		return nil, fmt.Errorf("%s: offset %d: the data ends or cannot be read here, expected %d items of %d bytes: %w",
			path, int64(len(header))+got, n, item, orUnexpected(err))
	}
	// One read more also checks a gzip stream's own length and checksum.
	if extra, err := io.CopyN(io.Discard, r, 1); extra != 0 {
		return nil, fmt.Errorf("%s: offset %d: more data after the %d items of %d bytes that the header says", path,
			int64(len(header))+got, n, item)
	} else if err != io.EOF {
		return nil, fmt.Errorf("%s: offset %d: expected the end of the file: %w", path, int64(len(header))+got, err)
	}
	return body.Bytes(), nil
}

// orUnexpected is err, but for io.EOF, which does not say that there should have been more.
func orUnexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
