package data

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const page = "\n<!DOCTYPE html>\n<html><title>404</title>"

// cifarRecord is a record whose pixel (y, x, c) is what cifarPixel says.
func cifarRecord(seed int, labels ...uint8) []byte {
	r := slices.Clone(labels)
	for c := range 3 {
		for y := range 32 {
			for x := range 32 {
				r = append(r, cifarPixel(seed, y, x, c))
			}
		}
	}
	return r
}

func cifarPixel(seed, y, x, c int) uint8 { return uint8(seed + 7*y + 3*x + 101*c) }

func write(t testing.TB, b []byte, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func checkCIFARPixels(t *testing.T, s *Set, seeds ...int) {
	t.Helper()
	if s.Len() != len(seeds) || s.Height != 32 || s.Width != 32 || s.Channels != 3 || !slices.Equal(s.Index, count(len(seeds))) {
		t.Fatalf("%d images of %dx%dx%d at %v, want %d", s.Len(), s.Height, s.Width, s.Channels, s.Index, len(seeds))
	}
	for i, seed := range seeds {
		for k, got := range s.Image(i) {
			if want := cifarPixel(seed, k/96, k/3%32, k%3); got != want {
				t.Fatalf("image %d, byte %d: %d, want %d", i, k, got, want)
			}
		}
	}
}

func TestCIFAR10(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "cifar-10-batches-bin")
	for k := range 5 {
		write(t, append(cifarRecord(2*k, uint8(k)), cifarRecord(2*k+1, uint8(k+5))...), sub, "data_batch_"+string(rune('1'+k))+".bin")
	}
	write(t, cifarRecord(40, 9), sub, "test_batch.bin")
	for _, d := range []string{dir, sub} {
		s, err := Open("cifar10", d, Train, Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkCIFARPixels(t, s, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		if want := []int{0, 5, 1, 6, 2, 7, 3, 8, 4, 9}; !slices.Equal(s.Labels, want) {
			t.Errorf("labels %v, want %v", s.Labels, want)
		}
		if s, err = Open("cifar10", d, Test, Options{}); err != nil {
			t.Fatal(err)
		}
		checkCIFARPixels(t, s, 40)
		if name := s.Classes[s.Labels[0]]; name != "truck" {
			t.Errorf("class 9 is called %q", name)
		}
	}
	if err := os.Remove(filepath.Join(sub, "data_batch_4.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := CIFAR10(dir, Train); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "data_batch_4.bin") {
		t.Errorf("without the fourth file: %v", err)
	}
	if _, err := CIFAR10(t.TempDir(), Test); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "test_batch.bin") {
		t.Errorf("without any file: %v", err)
	}
}

func TestCIFAR100(t *testing.T) {
	dir := t.TempDir()
	write(t, append(cifarRecord(1, 4, 0), cifarRecord(2, 13, 99)...), dir, "cifar-100-binary", "train.bin")
	s, err := Open("cifar100", dir, Train, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkCIFARPixels(t, s, 1, 2)
	if !slices.Equal(s.Labels, []int{0, 99}) || len(s.Classes) != 100 || len(s.Groups) != 100 {
		t.Errorf("labels %v of %d classes in %d groups", s.Labels, len(s.Classes), len(s.Groups))
	}
	// Known members of superclasses, at both ends and between.
	for class, want := range map[string]string{
		"apple": "fruit_and_vegetables", "worm": "non-insect_invertebrates", "whale": "aquatic_mammals", "tank": "vehicles_2",
		"bicycle": "vehicles_1", "oak_tree": "trees", "tiger": "large_carnivores", "clock": "household_electrical_devices",
	} {
		if got := s.Groups[slices.Index(s.Classes, class)]; got != want {
			t.Errorf("%s is one of the %s, want %s", class, got, want)
		}
	}
	members := map[string]int{}
	for _, g := range s.Groups {
		members[g]++
	}
	for g, n := range members {
		if n != 5 {
			t.Errorf("%s has %d classes, want 5", g, n)
		}
	}
}

func TestCIFARRefuses(t *testing.T) {
	two := append(cifarRecord(0, 1), cifarRecord(1, 2)...)
	bad := slices.Clone(two)
	bad[3073] = 10
	for _, c := range []struct {
		name string
		file []byte
		set  string
		want string
	}{
		{"empty", nil, "cifar10", "offset 0: the file ends 0 bytes into a record, expected one or more whole records of 3073 bytes"},
		{"truncated", two[:6000], "cifar10", "offset 3073: the file ends 2927 bytes into a record"},
		{"class", bad, "cifar10", "offset 3073: class 10, expected 0 to 9"},
		{"page", []byte(page), "cifar10", "offset 0: a web page"},
		{"truncated", cifarRecord(0, 4, 0)[:3073], "cifar100", "offset 0: the file ends 3073 bytes into a record"},
		{"class", cifarRecord(0, 4, 100), "cifar100", "offset 1: class 100, expected 0 to 99"},
		{"superclass", cifarRecord(0, 5, 0), "cifar100", "offset 0: superclass 5 of class 0 (apple), expected 4"},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, map[string]string{"cifar10": "test_batch.bin", "cifar100": "test.bin"}[c.set])
		write(t, c.file, name)
		_, err := Open(c.set, dir, Test, Options{})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %v, want %s: %s", c.set, c.name, err, name, c.want)
		}
	}
}

func FuzzCIFAR(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte(page), true)
	f.Add(cifarRecord(0, 3), false)
	f.Add(cifarRecord(0, 13, 99), true)
	f.Add(cifarRecord(0, 1)[:3000], false)
	f.Fuzz(func(t *testing.T, b []byte, hundred bool) {
		s := &Set{Name: "cifar10", Height: 32, Width: 32, Channels: 3, Classes: make([]string, 10)}
		labelBytes := 1
		if hundred {
			s.Classes, labelBytes = make([]string, 100), 2
		}
		if parseCIFAR(s, "fuzz", b, labelBytes) != nil {
			return
		}
		if n := len(b) / (labelBytes + cifarPixels); s.Len() != n || len(s.Pixels) != n*cifarPixels || n*(labelBytes+cifarPixels) != len(b) {
			t.Fatalf("%d bytes became %d labels and %d pixels", len(b), s.Len(), len(s.Pixels))
		}
		for _, class := range s.Labels {
			if class < 0 || class >= len(s.Classes) {
				t.Fatalf("class %d", class)
			}
		}
	})
}
