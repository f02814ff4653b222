package data

import (
	"errors"
	"fmt"
	"image"
	stddraw "image/draw"
	_ "image/jpeg" // decoders of the two formats that pictures come in
	_ "image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/image/draw"
)

const (
	maxPicture = 1 << 26 // pixels that are worth decoding to fill a data set's image
	maxSize    = 1024    // of a set's images, in pixels a side
)

// Folder reads a split of a set of pictures: dir/train/CLASS/*.png or dir/test/CLASS/*.png (or dir/val if there is no
// dir/test), or .jpg or .jpeg, directly in the folder of their class or in folders inside it. Classes are in the order of
// their names and are those of dir/train for both splits, or those of dir/test if that is alone. Hidden files, and files that are
// not pictures by their names, are left out.
//
// The largest square in the middle of each picture is brought to size by size pixels (Catmull-Rom, averaging over the
// pixels that it makes smaller), and kept as it is where it has that size. Images have three channels; grey is repeated,
// and what is transparent lets black through.
func Folder(dir string, split Split, size int) (*Set, error) {
	if size < 1 || size > maxSize {
		return nil, fmt.Errorf("folder: image size %d, expected 1 to %d", size, maxSize)
	}
	train := filepath.Join(dir, "train")
	root := train
	if split == Test {
		root = filepath.Join(dir, "test")
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(filepath.Join(dir, "val")); err == nil {
				root = filepath.Join(dir, "val")
			}
		}
	}
	here, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	classes := here
	if split == Test {
		switch trained, err := subfolders(train); {
		case err == nil:
			classes = trained
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}

	var paths []string
	s := &Set{Name: "folder", Height: size, Width: size, Channels: 3, Classes: classes}
	for _, class := range here {
		label := slices.Index(classes, class)
		if label < 0 {
			return nil, fmt.Errorf("%s: no such class in %s, expected the same classes in both", filepath.Join(root, class), train)
		}
		found, err := pictures(filepath.Join(root, class))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: no pictures, expected .png, .jpg or .jpeg files", filepath.Join(root, class))
		}
		for range found {
			s.Labels = append(s.Labels, label)
		}
		paths = append(paths, found...)
	}
	s.Index = count(len(paths))
	s.Pixels = make([]uint8, len(paths)*s.ImageSize())
	failed := make([]error, len(paths))
	parallel(len(paths), func(i int) {
		failed[i] = readPicture(s.Image(i), paths[i], size)
	})
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// subfolders returns the names of the folders in dir, sorted; links to folders count.
func subfolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no folders, expected one for each class", dir)
	}
	return names, nil
}

// pictures returns the paths of the pictures under dir, sorted.
func pictures(dir string) ([]string, error) {
	var paths []string
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("folder: %w", err)
		case strings.HasPrefix(e.Name(), ".") && path != dir:
			if e.IsDir() {
				return fs.SkipDir
			}
		case !e.IsDir():
			switch strings.ToLower(filepath.Ext(path)) {
			case ".png", ".jpg", ".jpeg":
				paths = append(paths, path)
			case ".bmp", ".gif", ".tif", ".tiff", ".webp":
				return fmt.Errorf("%s: a picture in a form that is not read, expected .png, .jpg or .jpeg", path)
			}
		}
		return nil
	})
	return paths, err
}

func readPicture(dst []uint8, path string, size int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	defer f.Close()
	return parsePicture(dst, path, f, size)
}

// parsePicture writes a picture to dst, size by size pixels of three channels.
func parsePicture(dst []uint8, path string, f io.ReadSeeker, size int) error {
	// The header alone is read first: a small file can claim a picture that does not fit in memory.
	config, _, err := image.DecodeConfig(f)
	if err != nil {
		return fmt.Errorf("%s: offset 0: no PNG or JPEG header: %w", path, err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > maxPicture/config.Height {
		return fmt.Errorf("%s: a picture of %d by %d pixels, expected at least 1 and at most %d in all",
			path, config.Width, config.Height, maxPicture)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	picture, format, err := image.Decode(f)
	if err != nil {
		at, _ := f.Seek(0, io.SeekCurrent)
		return fmt.Errorf("%s: damaged %s picture, read up to offset %d: %w", path, format, at, err)
	}
	b := picture.Bounds()
	side := min(b.Dx(), b.Dy())
	corner := b.Min.Add(image.Pt((b.Dx()-side)/2, (b.Dy()-side)/2))
	out := image.NewRGBA(image.Rect(0, 0, size, size))
	if side == size {
		stddraw.Draw(out, out.Bounds(), picture, corner, stddraw.Src)
	} else {
		draw.CatmullRom.Scale(out, out.Bounds(), picture, image.Rectangle{Min: corner, Max: corner.Add(image.Pt(side, side))}, draw.Src, nil)
	}
	for k := range size * size {
		copy(dst[3*k:3*k+3], out.Pix[4*k:])
	}
	return nil
}
