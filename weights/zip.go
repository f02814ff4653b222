package weights

import (
	"archive/zip"
	"bytes"
	"cmp"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/internal/pickle"
)

// record is one file of a zip archive: where its bytes are in the archive's.
type record struct {
	name     string
	from, to int64
	crc      uint32
}

// parseZip reads the format of PyTorch 1.6 and later: a zip archive, in one folder of which data.pkl is the object and
// data/KEY are its storages.
func parseZip(raw []byte) (any, error) {
	records, err := zipRecords(raw)
	if err != nil {
		return nil, err
	}
	byName := map[string]record{}
	folder := ""
	for _, r := range records {
		byName[r.name] = r
		if dir, base := path.Split(r.name); base == "data.pkl" && strings.Count(dir, "/") == 1 {
			folder = dir
		}
	}
	if folder == "" {
		return nil, fmt.Errorf("it is a zip archive without the data.pkl that torch.save writes; it holds %s", archived(records))
	}
	if _, program := byName[folder+"constants.pkl"]; program {
		return nil, fmt.Errorf("it is a TorchScript program, not a file of weights; save its state_dict() with torch.save")
	}
	if order, has := byName[folder+"byteorder"]; has && string(bytes.TrimSpace(raw[order.from:order.to])) != "little" {
		return nil, errBigEndian
	}
	t := &torch{storages: map[string]*storage{}, find: func(key string, size int) ([]byte, error) {
		r, has := byName[folder+"data/"+key]
		if !has {
			return nil, fmt.Errorf("storage %q is not in the archive", key)
		}
		if r.to-r.from != int64(size) {
			return nil, fmt.Errorf("storage %q is said to take %d bytes, but the archive has %d for it, from byte %d on", key, size, r.to-r.from, r.from)
		}
		return raw[r.from:r.to], nil
	}}
	program := byName[folder+"data.pkl"]
	root, end, err := pickle.Load(raw[:program.to], int(program.from), t)
	if err == nil && int64(end) != program.to {
		err = fmt.Errorf("at byte %d: %d bytes follow the pickle, expected none", end, program.to-int64(end))
	}
	return root, err
}

func archived(records []record) string {
	var names []string
	for _, r := range records {
		names = append(names, r.name)
	}
	if len(names) == 0 {
		return "nothing"
	}
	return listNames(names)
}

// zipRecords lists an archive's files. PyTorch stores them as they are: none that is compressed, encrypted, overlaps
// another, goes by another's name or has a path that leads out of the archive is accepted.
func zipRecords(raw []byte) ([]record, error) {
	z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, fmt.Errorf("at byte %d: no sound zip directory is before the end of the file (%w): is the download complete?", len(raw), err)
	}
	var records []record
	seen := map[string]bool{}
	for _, f := range z.File {
		from, err := f.DataOffset()
		size := int64(f.UncompressedSize64)
		if err != nil {
			return nil, fmt.Errorf("archived file %q has no header where the archive's directory says: %w", f.Name, err)
		}
		refuse := func(format string, args ...any) error {
			return fmt.Errorf("at byte %d: archived file %q %s", from, f.Name, fmt.Sprintf(format, args...))
		}
		switch {
		case f.Name == "" || path.IsAbs(f.Name) || strings.ContainsAny(f.Name, "\\\x00") || slices.Contains(strings.Split(f.Name, "/"), ".."):
			return nil, refuse("has a path that may lead out of the archive")
		case seen[f.Name]:
			return nil, refuse("is there twice")
		case f.Method != zip.Store:
			return nil, refuse("is compressed, but PyTorch stores its files as they are; was the archive packed again?")
		case f.Flags&1 != 0:
			return nil, refuse("is encrypted")
		case f.CompressedSize64 != f.UncompressedSize64:
			return nil, refuse("is stored in %d bytes, but said to have %d", f.CompressedSize64, f.UncompressedSize64)
		case size < 0 || size > int64(len(raw))-from:
			return nil, refuse("is said to have %d bytes, but the file ends at byte %d", f.UncompressedSize64, len(raw))
		}
		seen[f.Name] = true
		records = append(records, record{f.Name, from, from + size, f.CRC32})
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.from, b.from) })
	last := record{}
	for _, r := range records {
		if r.from < last.to {
			return nil, fmt.Errorf("at byte %d: archived file %q overlaps %q, which goes on to byte %d", r.from, r.name, last.name, last.to)
		}
		// PyTorch can be told not to compute checksums, and then writes 0.
		if r.crc != 0 && crc32.ChecksumIEEE(raw[r.from:r.to]) != r.crc {
			return nil, fmt.Errorf("at byte %d: archived file %q does not match its checksum", r.from, r.name)
		}
		last = r
	}
	return records, nil
}
