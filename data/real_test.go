package data

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The published files, where ADAAD_DATA_DIR has them; CIFAR-100's training file may be a part of it.
func TestPublishedFiles(t *testing.T) {
	dir := os.Getenv("ADAAD_DATA_DIR")
	if dir == "" {
		t.Skip("ADAAD_DATA_DIR is not set")
	}
	for _, info := range Infos() {
		sub := map[string]string{"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary", "mnist": "mnist"}[info.Name]
		if sub == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, sub)); err != nil {
			t.Logf("no %s in %s", sub, dir)
			continue
		}
		for split, want := range map[Split]int{Train: info.Train, Test: info.Test} {
			s, err := Open(info.Name, dir, split, Options{})
			if err != nil {
				t.Error(err)
				continue
			}
			if s.Len() != want && (info.Name != "cifar100" || split == Test) {
				t.Errorf("%s has %d %s images, want %d", info.Name, s.Len(), split, want)
			}
			if len(s.Classes) != info.Classes || s.Height != info.Height || s.Width != info.Width || s.Channels != info.Channels {
				t.Errorf("%s: %d classes of %dx%dx%d", info.Name, len(s.Classes), s.Height, s.Width, s.Channels)
			}
			each := perClass(s)
			if info.Name != "mnist" && s.Len() == want && slices.Min(each) != slices.Max(each) {
				t.Errorf("%s %s has from %d to %d images of a class", info.Name, split, slices.Min(each), slices.Max(each))
			}
			if info.Name != "cifar100" {
				continue
			}
			if b, err := os.ReadFile(filepath.Join(dir, sub, "fine_label_names.txt")); err != nil {
				t.Log(err)
			} else if got := strings.Fields(string(b)); !slices.Equal(got, s.Classes) {
				t.Errorf("the classes are called %v, want %v", got, s.Classes)
			}
		}
	}
}
