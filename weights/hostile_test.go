package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed is a file of a zip archive as a test writes it.
type packed struct {
	name   string
	data   string
	method uint16
}

func zipOf(t testing.TB, entries ...packed) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		w, err := z.CreateHeader(&zip.FileHeader{Name: e.name, Method: e.method})
		if err == nil {
			_, err = w.Write([]byte(e.data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stored is the pickle's reference to a storage of n values.
func stored(class, key string, n int) string {
	return fmt.Sprintf("(U\x07storagectorch\n%s\nU%c%sU\x03cpuI%d\ntQ", class, len(key), key, n)
}

// tensorOf is the pickle of a tensor over a storage.
func tensorOf(storage, offset, shape, strides string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + "I" + offset + "\n" + ints(shape) + ints(strides) + "\x89}tR"
}

func ints(list string) string {
	b := "("
	for _, n := range strings.Fields(list) {
		b += "I" + n + "\n"
	}
	return b + "t"
}

// named is the pickle of a dict with one entry.
func named(name, value string) string {
	return fmt.Sprintf("}U%c%s%ss", len(name), name, value)
}

const six = "\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40\x00\x00\xa0\x40" // 0 to 5

// inZip is a checkpoint with a pickle and storage "0" of six float32.
func inZip(t testing.TB, pickle string) []byte {
	return zipOf(t, packed{"m/data.pkl", pickle, zip.Store}, packed{"m/data/0", six, zip.Store})
}

// inLegacy is the same in the older format.
func inLegacy(pickle string) []byte {
	b := "L119547037146038801333356L\n.I1001\n.}." + pickle + "](U\x010e."
	return append([]byte(b), append(binary.LittleEndian.AppendUint64(nil, 6), six...)...)
}

func float(t testing.TB, offset, shape, strides string) string {
	t.Helper()
	return tensorOf(stored("FloatStorage", "0", 6), offset, shape, strides)
}

func TestViews(t *testing.T) {
	for _, c := range []struct {
		offset, shape, strides string
		want                   []float32
	}{
		{"0", "2 3", "3 1", []float32{0, 1, 2, 3, 4, 5}},
		{"0", "3 2", "1 3", []float32{0, 3, 1, 4, 2, 5}},
		{"1", "2", "3", []float32{1, 4}},
		{"2", "", "", []float32{2}},
		{"4", "1 2 1", "9 1 7", []float32{4, 5}},
		{"6", "0 4", "4 1", nil},
		{"0", "1 2 1 3", "6 1 2 2", []float32{0, 2, 4, 1, 3, 5}},
	} {
		pickle := named("x", float(t, c.offset, c.shape, c.strides)) + "."
		for form, raw := range map[string][]byte{"zip": inZip(t, pickle), "legacy": inLegacy(pickle)} {
			f, err := parsePyTorch(raw, "")
			if err != nil {
				t.Errorf("%s, shape %s, strides %s: %v", form, c.shape, c.strides, err)
				continue
			}
			got, err := f.Tensors[0].Floats()
			if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s, shape %s, strides %s, offset %s: got %v, %v, expected %v", form, c.shape, c.strides, c.offset, got, err, c.want)
			}
		}
	}
}

// The state dict under the most usual name is taken; others are named, and taken when asked for.
func TestEntries(t *testing.T) {
	x := float(t, "0", "1", "1")
	dict := func(pairs ...string) string {
		b := "}("
		for i := 0; i < len(pairs); i += 2 {
			b += fmt.Sprintf("U%c%s%s", len(pairs[i]), pairs[i], pairs[i+1])
		}
		return b + "u"
	}
	weight := dict("w", x)
	for _, c := range []struct{ pickle, entry, want, others, refused string }{
		{weight, "", "", "", ""},
		{dict("net", weight, "acc", "K\x01"), "", "net", "", ""},
		{dict("ema", weight, "best", x, "model", weight), "", "model", ",ema", ""},
		{dict("ema", dict("w", x), "model", weight), "ema", "ema", "model", ""},
		{dict("model", dict("state_dict", weight, "step", "N")), "", "model.state_dict", "", ""},
		{dict("anything", weight), "", "anything", "", ""},
		{dict("ema", weight), "", "ema", "", ""},
		{dict("last", weight, "best", dict("w", x)), "", "", "", "choose one with --entry: last, best"},
		{dict("last", weight, "best", dict("w", x)), "best", "best", "last", ""},
		{dict("net", weight), "nets", "", "", `no state dict "nets"; found: net`},
		{dict("epoch", "K\x01"), "", "", "", "no state dict"},
		{"]", "", "", "", "it holds a list"},
		{"}q\x00U\x05modelh\x00s", "", "", "", "no state dict"}, // a dict within itself
	} {
		f, err := parsePyTorch(inZip(t, c.pickle+"."), c.entry)
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%q: error is %v, expected it to say %q", c.pickle, err, c.refused)
			}
		case err != nil:
			t.Errorf("%q: %v", c.pickle, err)
		case f.Entry != c.want || strings.Join(f.Others, ",") != c.others:
			t.Errorf("%q: took %q and left %q, expected %q and %q", c.pickle, f.Entry, f.Others, c.want, c.others)
		}
	}
}

// hostilePickles are refused in both formats.
var hostilePickles = map[string]struct{ pickle, want string }{
	"callable":          {"cposix\nsystem\n(U\x02lstR.", "asks for posix.system, which is not among the few names"},
	"builtin":           {"cbuiltins\neval\n(U\x011tR.", "asks for builtins.eval"},
	"whole model":       {"cmodels.resnet\nResNet\n)\x81.", "asks for models.resnet.ResNet"},
	"torch function":    {"ctorch\nload\n.", "asks for torch.load"},
	"getattr":           {"c__builtin__\ngetattr\n.", "asks for __builtin__.getattr"},
	"complex":           {named("x", tensorOf(stored("ComplexFloatStorage", "0", 3), "0", "3", "1")) + ".", "asks for torch.ComplexFloatStorage"},
	"beyond":            {named("x", tensorOf(stored("FloatStorage", "0", 6), "1", "6", "1")) + ".", "reaches value 6 of a storage of 6"},
	"stride beyond":     {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "2 2", "5 1")) + ".", "reaches value 6"},
	"huge stride":       {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "3", "9223372036854775807")) + ".", "reaches value 18446744073709551614"},
	"huge shape":        {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "9223372036854775807 9223372036854775807", "0 0")) + ".", "too large"},
	"repeated":          {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "1000000000", "0")) + ".", "repeats the values of a storage of 6"},
	"negative offset":   {named("x", tensorOf(stored("FloatStorage", "0", 6), "-1", "1", "1")) + ".", "starts at value -1"},
	"offset beyond":     {named("x", tensorOf(stored("FloatStorage", "0", 6), "7", "0", "1")) + ".", "starts at value 7"},
	"negative stride":   {named("x", tensorOf(stored("FloatStorage", "0", 6), "5", "2", "-1")) + ".", "holds -1"},
	"negative shape":    {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "-1", "1")) + ".", "holds -1"},
	"strides missing":   {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "2 3", "1")) + ".", "2 dimensions and 1 strides"},
	"many axes":         {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", strings.Repeat("1 ", 17), strings.Repeat("1 ", 17))) + ".", "at most 16"},
	"negative storage":  {named("x", tensorOf(stored("FloatStorage", "0", -6), "0", "1", "1")) + ".", "said to hold -6"},
	"two sizes":         {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "1", "1")) + named("y", tensorOf(stored("FloatStorage", "0", 5), "0", "1", "1")) + ".", "but 6 of F32 before"},
	"two types":         {named("x", tensorOf(stored("FloatStorage", "0", 6), "0", "1", "1")) + named("y", tensorOf(stored("IntStorage", "0", 6), "0", "1", "1")) + ".", "but 6 of F32 before"},
	"no storage":        {named("x", tensorOf("N", "0", "1", "1")) + ".", "made of None, expected a storage"},
	"few arguments":     {"ctorch._utils\n_rebuild_tensor_v2\n)R.", "made of 0 arguments"},
	"parameter":         {"ctorch._utils\n_rebuild_parameter\n(NNNtR.", "something else than a tensor"},
	"size":              {"ctorch\nSize\n(K\x01tR.", "something else than a tuple"},
	"ordered dict":      {"ccollections\nOrderedDict\n(]tR.", "as Python 2 wrote it"},
	"id":                {"NQ.", "expected the description of a storage"},
	"module":            {"(U\x06moduleNU\x01xU\x01ytQ.", "whole module"},
	"view of a storage": {"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06(U\x01xK\x00K\x01ttQ.", "part of another"},
	"class of storage":  {"(U\x07storageNU\x010U\x03cpuK\x06tQ.", "class None"},
}

// A few tensors over the same values are shared; so many that reading them all would take much more than the file are not.
func TestSharedStorage(t *testing.T) {
	for n, allowed := range map[int]bool{3: true, 6: false} {
		pickle := "}U\x01a" + tensorOf(stored("FloatStorage", "0", 600), "0", "600", "1") + "q\x00s"
		for i := range n - 1 {
			pickle += fmt.Sprintf("U\x01%dh\x00s", i)
		}
		raw := zipOf(t, packed{"m/data.pkl", pickle + ".", zip.Store}, packed{"m/data/0", strings.Repeat(six, 100), zip.Store})
		f, err := parsePyTorch(raw, "")
		switch {
		case allowed && (err != nil || len(f.Tensors) != n):
			t.Errorf("%d tensors over one storage: %v", n, err)
		case !allowed && (err == nil || !strings.Contains(err.Error(), "more than 4 times the file")):
			t.Errorf("%d tensors over one storage: error is %v", n, err)
		}
	}
}

func TestHostilePicklesAreRefused(t *testing.T) {
	for name, c := range hostilePickles {
		for form, raw := range map[string][]byte{"zip": inZip(t, c.pickle), "legacy": inLegacy(c.pickle)} {
			if _, err := parsePyTorch(raw, ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: error is %v, expected it to say %q", name, form, err, c.want)
			}
		}
	}
}

func hostileFiles(t testing.TB) map[string]struct {
	raw  []byte
	want string
} {
	sound := named("x", float(t, "0", "6", "1")) + "."
	whole, old := inZip(t, sound), inLegacy(sound)
	change := func(raw []byte, at int, b ...byte) []byte {
		out := bytes.Clone(raw)
		copy(out[at:], b)
		return out
	}
	central := bytes.LastIndex(whole, []byte("PK\x01\x02")) // the header of m/data/0 in the directory
	first := bytes.Index(whole, []byte("PK\x01\x02"))
	overlapping := bytes.Clone(whole)
	copy(overlapping[central+42:], whole[first+42:first+46]) // it begins where m/data.pkl does
	copy(overlapping[central+16:], []byte{0, 0, 0, 0})
	return map[string]struct {
		raw  []byte
		want string
	}{
		"compressed":     {zipOf(t, packed{"m/data.pkl", sound, zip.Deflate}, packed{"m/data/0", six, zip.Store}), `"m/data.pkl" is compressed`},
		"bomb":           {zipOf(t, packed{"m/data.pkl", sound, zip.Store}, packed{"m/data/0", strings.Repeat("\x00", 1<<22), zip.Deflate}), `"m/data/0" is compressed`},
		"climbing":       {zipOf(t, packed{"m/../../data.pkl", sound, zip.Store}), "lead out of the archive"},
		"absolute":       {zipOf(t, packed{"/m/data.pkl", sound, zip.Store}), "lead out of the archive"},
		"backslash":      {zipOf(t, packed{"m\\data.pkl", sound, zip.Store}), "lead out of the archive"},
		"twice":          {zipOf(t, packed{"m/data.pkl", sound, zip.Store}, packed{"m/data.pkl", sound, zip.Store}), "is there twice"},
		"other":          {zipOf(t, packed{"a.txt", "text", zip.Store}), "without the data.pkl that torch.save writes; it holds a.txt"},
		"script":         {zipOf(t, packed{"m/data.pkl", sound, zip.Store}, packed{"m/constants.pkl", ").", zip.Store}), "TorchScript"},
		"big-endian":     {zipOf(t, packed{"m/data.pkl", sound, zip.Store}, packed{"m/byteorder", "big", zip.Store}), "big-endian"},
		"no storage":     {zipOf(t, packed{"m/data.pkl", sound, zip.Store}), `storage "0" is not in the archive`},
		"short storage":  {zipOf(t, packed{"m/data.pkl", sound, zip.Store}, packed{"m/data/0", "four", zip.Store}), "said to take 24 bytes, but the archive has 4"},
		"after pickle":   {inZip(t, sound+"more"), "4 bytes follow the pickle"},
		"no directory":   {whole[:len(whole)/2], "no sound zip directory"},
		"checksum":       {change(whole, bytes.Index(whole, []byte(six))+8, 1), "does not match its checksum"},
		"overlap":        {overlapping, "overlaps"},
		"long":           {change(whole, central+20, 0, 0, 0, 1, 0, 0, 0, 1), "the file ends at byte"},
		"two sizes":      {change(whole, central+24, 25), "is stored in 24 bytes, but said to have 25"},
		"encrypted":      {change(whole, central+8, 1), "encrypted"},
		"magic":          {[]byte("\x80\x02K\x01." + strings.Repeat("N.", 9)), "magic number is missing"},
		"version":        {bytes.Replace(old, []byte("I1001"), []byte("I1002"), 1), "version is 1002"},
		"old big-endian": {bytes.Replace(old, []byte("\n.}."), []byte("\n.}U\x0dlittle_endian\x89s."), 1), "big-endian"},
		"keys":           {bytes.Replace(old, []byte("](U\x010e."), []byte("}U\x010Ns."), 1), "expected a list"},
		"unknown key":    {bytes.Replace(old, []byte("](U\x010e."), []byte("](U\x011e."), 1), `storage "1" follows`},
		"key twice":      {bytes.Replace(old, []byte("](U\x010e."), []byte("](U\x010U\x010e."), 1), "which came before"},
		"no key":         {bytes.Replace(old, []byte("](U\x010e."), []byte("]."), 1), "bytes follow the last storage"},
		"count":          {change(old, len(old)-len(six)-8, 5), "has 5 values, expected 6"},
		"cut in values":  {old[:len(old)-1], "ends inside storage"},
		"cut before":     {old[:len(old)-len(six)-1], "ends before storage"},
		"cut in pickle":  {old[:40], "the file ends"},
		"trailing":       {append(bytes.Clone(old), 0), "1 bytes follow the last storage"},
	}
}

func TestHostileFilesAreRefused(t *testing.T) {
	for name, c := range hostileFiles(t) {
		if _, err := parsePyTorch(c.raw, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, expected it to say %q", name, err, c.want)
		}
	}
}

// What is saved under a name of weights by mistake is called what it is.
func TestStrangeFiles(t *testing.T) {
	tarball := make([]byte, 512)
	copy(tarball[257:], "ustar")
	for want, raw := range map[string]string{
		"web page":             "\n<!DOCTYPE html><html>Quota exceeded</html>",
		"pointer of Git LFS":   "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
		"compressed with gzip": "\x1f\x8b\x08\x00rest of it",
		"tar archive":          string(tarball),
		"no sound safetensors": "some text that is no file of weights",
		"the file ends":        "",
	} {
		path := filepath.Join(t.TempDir(), "model.pt")
		if err := os.WriteFile(path, []byte(raw), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("error is %v, expected it to name the file and say %q", err, want)
		}
	}
}

// Every prefix of a file, and every file with one byte changed, ends in an error or in tensors within its size.
func TestDamagedPyTorchFiles(t *testing.T) {
	sound := named("x", float(t, "0", "3 2", "1 3")) + "."
	for form, raw := range map[string][]byte{"zip": inZip(t, sound), "legacy": inLegacy(sound)} {
		for n := range raw {
			if _, err := parsePyTorch(raw[:n], ""); err == nil {
				t.Errorf("%s: the first %d of %d bytes were taken for a whole file", form, n, len(raw))
			}
			for bit := range 8 {
				broken := bytes.Clone(raw)
				broken[n] ^= 1 << bit
				checkPyTorch(t, broken)
			}
		}
	}
}

// checkPyTorch holds what is read of any bytes to its promises, through to recognising a network.
func checkPyTorch(t *testing.T, raw []byte) {
	f, err := parsePyTorch(raw, "")
	if err != nil {
		return
	}
	total := 0
	for _, x := range f.Tensors {
		total += len(x.Data)
		if err := x.validate(); err != nil {
			t.Errorf("accepted %v", err)
		}
	}
	if total > maxShared*len(raw) {
		t.Errorf("%d bytes of tensors out of a file of %d", total, len(raw))
	}
	if _, err := f.NotFinite(); err != nil {
		t.Error(err)
	}
	if id, err := f.Identify(Hints{}); err == nil {
		if _, err := id.Oddities(); err != nil && !strings.Contains(err.Error(), "expected F32") {
			t.Error(err)
		}
		_, _ = id.Model()
	}
}

func FuzzPyTorch(f *testing.F) {
	for _, c := range hostileFiles(f) {
		if len(c.raw) < 4096 {
			f.Add(c.raw)
		}
	}
	for _, c := range hostilePickles {
		if len(c.pickle) < 4096 {
			f.Add(inZip(f, c.pickle))
			f.Add(inLegacy(c.pickle))
		}
	}
	sound := named("x", float(f, "0", "3 2", "1 3")) + "."
	f.Add(inZip(f, sound))
	f.Add(inLegacy(sound))
	f.Fuzz(func(t *testing.T, raw []byte) { checkPyTorch(t, raw) })
}
