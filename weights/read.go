package weights

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

// The formats that are read.
const (
	Safetensors   = "safetensors"
	PyTorchZip    = "PyTorch (zip)"
	PyTorchLegacy = "PyTorch (before 1.6)"
)

// Read reads a safetensors or PyTorch file, told apart by their content; of a PyTorch checkpoint with several state
// dicts, the one under the most usual name. A file that is neither, or does not hold what its headers say, is refused
// with the byte at which it is wrong.
func Read(path string) (*File, error) { return ReadEntry(path, "") }

// ReadEntry is Read of the state dict that entry names, such as "ema" or "last.model".
func ReadEntry(path, entry string) (*File, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if looksZip(raw) || looksPickled(raw) {
		f, err := parsePyTorch(raw, entry)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read as a PyTorch file: %w", path, err)
		}
		f.Path = path
		return f, nil
	}
	f, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is no PyTorch file and no sound safetensors file: %w", path, err)
	}
	if entry != "" {
		return nil, fmt.Errorf("%s is a safetensors file, which has no parts, so no %q", path, entry)
	}
	f.Path = path
	return f, nil
}

func looksZip(raw []byte) bool { return bytes.HasPrefix(raw, []byte("PK")) }

// looksPickled tells a pickle by its first bytes, its protocol's number or in protocol 1 PyTorch's magic number itself,
// from a safetensors file whose header happens to have a length that starts with the same bytes.
func looksPickled(raw []byte) bool {
	return len(raw) > 8 && raw[0] == 0x80 && raw[1] <= 5 && raw[8] != '{' || bytes.HasPrefix(raw, []byte("L"+legacyMagic.String()))
}

// strange knows files that are saved under the names of weights by mistake, and says what they are.
func strange(raw []byte) error {
	start := bytes.ToLower(bytes.TrimLeft(raw[:min(len(raw), 512)], " \t\r\n\xef\xbb\xbf"))
	switch {
	case bytes.HasPrefix(start, []byte("<!doctype")) || bytes.HasPrefix(start, []byte("<html")):
		return errors.New("at byte 0: it is a web page; was the download an error page?")
	case bytes.HasPrefix(start, []byte("version https://git-lfs")):
		return errors.New("at byte 0: it is a pointer of Git LFS, not the file itself; get that with git lfs pull")
	case bytes.HasPrefix(raw, []byte("\x1f\x8b")):
		return errors.New("at byte 0: it is compressed with gzip; unpack it first")
	case len(raw) > 262 && string(raw[257:262]) == "ustar":
		return errors.New("at byte 0: it is a tar archive, as PyTorch before 0.2 wrote it or of something else; unpack it, or load and save it with a newer PyTorch")
	}
	return nil
}
