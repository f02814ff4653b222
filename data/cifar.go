package data

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	cifarSide   = 32
	cifarPlane  = cifarSide * cifarSide
	cifarPixels = 3 * cifarPlane
)

// CIFAR10 reads a split of CIFAR-10 (Krizhevsky 2009) in its binary form: cifar-10-batches-bin/data_batch_1.bin to
// data_batch_5.bin, or test_batch.bin. A record is a label byte and the red, green and blue planes, 3,073 bytes. Files
// may hold any whole number of records.
func CIFAR10(dir string, split Split) (*Set, error) {
	files := []string{"test_batch.bin"}
	if split == Train {
		files = []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"}
	}
	s := &Set{
		Name: "cifar10", Height: cifarSide, Width: cifarSide, Channels: 3,
		Classes: strings.Fields("airplane automobile bird cat deer dog frog horse ship truck"),
	}
	return readCIFAR(s, dir, "cifar-10-batches-bin", files, 1)
}

// CIFAR100 reads a split of CIFAR-100 (Krizhevsky 2009) in its binary form: cifar-100-binary/train.bin or test.bin. A
// record is a superclass byte, a class byte and the red, green and blue planes, 3,074 bytes. Labels are the 100 classes;
// Groups has the superclass of each. Files may hold any whole number of records.
func CIFAR100(dir string, split Split) (*Set, error) {
	s := &Set{
		Name: "cifar100", Height: cifarSide, Width: cifarSide, Channels: 3,
		Classes: strings.Fields(cifar100Classes),
		Groups:  make([]string, 100),
	}
	for class, g := range cifar100Group {
		s.Groups[class] = strings.Fields(cifar100Groups)[g]
	}
	return readCIFAR(s, dir, "cifar-100-binary", []string{split.String() + ".bin"}, 2)
}

func readCIFAR(s *Set, dir, sub string, files []string, labelBytes int) (*Set, error) {
	dir, err := find(dir, sub, files[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	for _, name := range files {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		if err := parseCIFAR(s, path, b, labelBytes); err != nil {
			return nil, err
		}
	}
	s.Index = count(len(s.Labels))
	return s, nil
}

// parseCIFAR appends the records in b to the set. The last of a record's labels is its class; CIFAR-100's first is the
// class's superclass.
func parseCIFAR(s *Set, path string, b []byte, labelBytes int) error {
	record := labelBytes + cifarPixels
	if isHTML(b) {
		return fmt.Errorf("%s: offset 0: a web page where %s records of %d bytes were expected", path, s.Name, record)
	}
	n := len(b) / record
	if n == 0 || len(b)%record != 0 {
		return fmt.Errorf("%s: offset %d: the file ends %d bytes into a record, expected one or more whole records of %d bytes",
			path, n*record, len(b)%record, record)
	}
	first := len(s.Labels)
	s.Labels = append(s.Labels, make([]int, n)...)
	s.Pixels = append(s.Pixels, make([]uint8, n*cifarPixels)...)
	for i := range n {
		r := b[i*record : (i+1)*record]
		at := i*record + labelBytes - 1
		class := int(r[labelBytes-1])
		if class >= len(s.Classes) {
			return fmt.Errorf("%s: offset %d: class %d, expected 0 to %d", path, at, class, len(s.Classes)-1)
		}
		if labelBytes == 2 && r[0] != cifar100Group[class] {
			return fmt.Errorf("%s: offset %d: superclass %d of class %d (%s), expected %d",
				path, at-1, r[0], class, s.Classes[class], cifar100Group[class])
		}
		s.Labels[first+i] = class
		planes := r[labelBytes:]
		px := s.Pixels[(first+i)*cifarPixels : (first+i+1)*cifarPixels]
		for k := range cifarPlane {
			px[3*k], px[3*k+1], px[3*k+2] = planes[k], planes[cifarPlane+k], planes[2*cifarPlane+k]
		}
	}
	return nil
}

// find returns which of dir and dir/sub has one of the files.
func find(dir, sub string, files ...string) (string, error) {
	for _, d := range []string{dir, filepath.Join(dir, sub)} {
		for _, f := range files {
			if exists(filepath.Join(d, f)) {
				return d, nil
			}
		}
	}
	return "", fmt.Errorf("no %s in %s or in %s: %w",
		strings.Join(files, " or "), cmp.Or(dir, "."), filepath.Join(dir, sub), fs.ErrNotExist)
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// isHTML reports whether a file is a web page, which is what a server that no longer has a data set often sends.
func isHTML(b []byte) bool {
	b = bytes.ToLower(bytes.TrimLeft(b[:min(len(b), 256)], "\xef\xbb\xbf \t\r\n"))
	return bytes.HasPrefix(b, []byte("<!doctype")) || bytes.HasPrefix(b, []byte("<html")) ||
		bytes.HasPrefix(b, []byte("<?xml")) || bytes.HasPrefix(b, []byte("<!--"))
}

// The names of CIFAR-100's superclasses and classes, in the order of their labels.
const (
	cifar100Groups = `aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
		household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
		large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
		vehicles_2`
	cifar100Classes = `apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
		can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
		flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
		motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
		porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
		streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
		willow_tree wolf woman worm`
)

// cifar100Group is the superclass of each class.
var cifar100Group = [100]uint8{
	4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12,
	14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1,
	9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
}
