package golden

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// CIFARTest is the first n images of CIFAR-10's test_batch.bin: pixels / 255 in N,C,H,W order, and labels. They come from
// the folder ADAAD_SHARED_DATA, else from ../shared/data beside the repository, which stores each image as the planes
// R-G, G and B-G (modulo 256), each the residual of PNG's Paeth predictor. The test is skipped where the folder is absent.
func CIFARTest(t testing.TB, n int) (pixels []float64, labels []int32) {
	t.Helper()
	dir, named := os.LookupEnv("ADAAD_SHARED_DATA")
	if !named {
		dir = filepath.Join(root(t), "..", "shared", "data")
	}
	stem := filepath.Join(dir, "cifar-10.test_batch")
	if _, err := os.Stat(stem + ".rgb.gz"); err != nil {
		if named {
			t.Fatalf("ADAAD_SHARED_DATA is %s, but: %v", dir, err)
		}
		t.Skipf("no CIFAR-10 (%v); set ADAAD_SHARED_DATA to its folder", err)
	}
	const side, plane = 32, 32 * 32
	all, residuals := gunzip(t, stem+".lab.gz"), gunzip(t, stem+".rgb.gz")
	for i := range n {
		labels = append(labels, int32(all[i]))
		var image [3][plane]byte
		for c := range image {
			unfilter(image[c][:], residuals[(c*len(all)+i)*plane:], side)
		}
		for c := range image {
			for k, v := range image[c] {
				if c != 1 {
					v += image[1][k]
				}
				pixels = append(pixels, float64(v)/255)
			}
		}
	}
	return pixels, labels
}

// unfilter undoes PNG's Paeth predictor over one plane.
func unfilter(dst, residual []byte, side int) {
	at := func(y, x int) int {
		if y < 0 || x < 0 {
			return 0
		}
		return int(dst[y*side+x])
	}
	for k := range dst {
		y, x := k/side, k%side
		left, up, corner := at(y, x-1), at(y-1, x), at(y-1, x-1)
		p := left + up - corner
		predictor := left
		if distance := abs(p - left); abs(p-up) < distance {
			predictor = up
		}
		if abs(p-corner) < abs(p-predictor) {
			predictor = corner
		}
		dst[k] = residual[k] + byte(predictor)
	}
}

func abs(v int) int { return max(v, -v) }

func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return b
}
