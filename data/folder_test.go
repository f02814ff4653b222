package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func pngOf(m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func jpegOf(m image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// plain is a picture of one colour.
func plain(w, h int, c color.Color) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	return m
}

func near(a, b []uint8, by int) bool {
	for i := range a {
		if d := int(a[i]) - int(b[i]); d > by || d < -by {
			return false
		}
	}
	return len(a) == len(b)
}

func TestFolder(t *testing.T) {
	red, green, blue := color.RGBA{200, 0, 0, 255}, color.RGBA{0, 200, 0, 255}, color.RGBA{0, 0, 200, 255}
	dir := t.TempDir()
	write(t, pngOf(plain(4, 4, green)), dir, "train", "b", "2.png")
	write(t, jpegOf(plain(4, 4, red)), dir, "train", "b", "10.JPEG")
	write(t, pngOf(plain(4, 4, blue)), dir, "train", "b", "images", "x.png")
	write(t, pngOf(plain(4, 4, red)), dir, "train", "a", "z.png")
	write(t, jpegOf(plain(9, 7, blue)), dir, "train", "c", "only.jpg")
	write(t, []byte("boxes"), dir, "train", "a", "boxes.txt")
	write(t, []byte("not a picture"), dir, "train", "a", "._z.png")
	write(t, nil, dir, "train", ".hidden", "x.png")
	write(t, pngOf(plain(4, 4, green)), dir, "val", "c", "1.png")

	s, err := Open("folder", dir, Train, Options{Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Classes, []string{"a", "b", "c"}) || !slices.Equal(s.Labels, []int{0, 1, 1, 1, 2}) || !slices.Equal(s.Index, count(5)) {
		t.Fatalf("classes %v, labels %v", s.Classes, s.Labels)
	}
	for i, want := range []color.RGBA{red, red, green, blue, blue} {
		if !near(s.Image(i), bytes.Repeat([]byte{want.R, want.G, want.B}, 16), 3) {
			t.Errorf("image %d is %v..., want %v", i, s.Image(i)[:3], want)
		}
	}

	// The only class of the test pictures keeps the label it has in training.
	if s, err = Folder(dir, Test, 2); err != nil {
		t.Fatal(err)
	}
	if s.Len() != 1 || s.Labels[0] != 2 || s.Height != 2 || len(s.Classes) != 3 {
		t.Errorf("%d test images, label %v of %v", s.Len(), s.Labels, s.Classes)
	}
	write(t, pngOf(plain(4, 4, green)), dir, "test", "d", "1.png")
	if _, err = Folder(dir, Test, 2); err == nil || !strings.Contains(err.Error(), filepath.Join("test", "d")) {
		t.Errorf("a class that has no training pictures: %v", err)
	}
	alone := t.TempDir()
	write(t, pngOf(plain(4, 4, green)), alone, "test", "d", "1.png")
	if s, err = Open("folder", alone, Test, Options{}); err != nil || s.Height != 32 || s.Classes[0] != "d" {
		t.Errorf("test pictures alone: %v", err)
	}
}

func TestPictures(t *testing.T) {
	read := func(m image.Image, size int) []uint8 {
		dst := make([]uint8, size*size*3)
		if err := parsePicture(dst, "test", bytes.NewReader(pngOf(m)), size); err != nil {
			t.Fatal(err)
		}
		return dst
	}

	// Pictures that fit keep every byte.
	m := image.NewRGBA(image.Rect(0, 0, 5, 5))
	var want []uint8
	for i := range 25 {
		c := color.RGBA{uint8(10 * i), uint8(255 - i), uint8(7 * i), 255}
		m.SetRGBA(i%5, i/5, c)
		want = append(want, c.R, c.G, c.B)
	}
	if got := read(m, 5); !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// Of an oblong one, the square in the middle is taken: here columns 2 and 3 of six.
	wide := image.NewGray(image.Rect(0, 0, 6, 2))
	for x := range 6 {
		wide.SetGray(x, 0, color.Gray{uint8(40 * x)})
		wide.SetGray(x, 1, color.Gray{uint8(40*x + 5)})
	}
	if got, want := read(wide, 2), []uint8{80, 80, 80, 120, 120, 120, 85, 85, 85, 125, 125, 125}; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// Making a picture smaller averages: a fine checkerboard turns grey.
	fine := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range fine.Pix {
		fine.Pix[i] = uint8((i + i/64) % 2 * 255)
	}
	if got := read(fine, 8); !near(got, bytes.Repeat([]uint8{127}, len(got)), 4) {
		t.Errorf("a checkerboard becomes %v...", got[:9])
	}

	// Transparency shows black.
	half := image.NewNRGBA(image.Rect(0, 0, 1, 1))
	half.SetNRGBA(0, 0, color.NRGBA{200, 100, 50, 128})
	if got := read(half, 1); !near(got, []uint8{100, 50, 25}, 1) {
		t.Errorf("a half transparent pixel becomes %v", got)
	}
}

// hugePNG is the header of a picture that would take 16 GB.
func hugePNG() []byte {
	b := pngOf(plain(1, 1, color.Black))
	binary.BigEndian.PutUint32(b[16:], 1<<16)
	binary.BigEndian.PutUint32(b[20:], 1<<16)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}

func TestFolderRefuses(t *testing.T) {
	good := pngOf(plain(40, 40, color.White))
	for _, c := range []struct{ file, content, want string }{
		{"x.png", page, "x.png: offset 0: no PNG or JPEG header"},
		{"x.png", "", "x.png: offset 0: no PNG or JPEG header"},
		{"x.png", string(good[:len(good)-30]), "x.png: damaged png picture, read up to offset"},
		{"x.jpg", string(jpegOf(plain(40, 40, color.White))[:600]), "x.jpg: damaged jpeg picture, read up to offset"},
		{"x.png", string(hugePNG()), "x.png: a picture of 65536 by 65536 pixels, expected at least 1 and at most 67108864"},
		{"x.webp", "RIFF", "x.webp: a picture in a form that is not read, expected .png, .jpg or .jpeg"},
		{"x.txt", "", "class: no pictures, expected .png, .jpg or .jpeg"},
		{"../x.txt", "", "train: no folders, expected one for each class"},
	} {
		dir := t.TempDir()
		write(t, []byte(c.content), dir, "train", "class", c.file)
		if strings.HasPrefix(c.file, "..") {
			dir = t.TempDir()
			write(t, []byte(c.content), dir, "train", "x.txt")
		}
		if _, err := Folder(dir, Train, 8); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.file, err, c.want)
		}
	}
	if _, err := Folder(t.TempDir(), Train, 8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without dir/train: %v", err)
	}
	for _, size := range []int{-1, 0, 1025} {
		if _, err := Folder(t.TempDir(), Train, size); err == nil || !strings.Contains(err.Error(), "expected 1 to 1024") {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func FuzzPicture(f *testing.F) {
	f.Add(pngOf(plain(3, 4, color.White)))
	f.Add(jpegOf(plain(5, 2, color.Black)))
	f.Add(jpegOf(plain(5, 2, color.Black))[:100])
	f.Add(hugePNG())
	f.Add([]byte(page))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height > 1<<16 && c.Width*c.Height < maxPicture {
			t.Skip("allowed, but slow")
		}
		dst := make([]uint8, 8*8*3)
		_ = parsePicture(dst, "fuzz", bytes.NewReader(b), 8)
	})
}
