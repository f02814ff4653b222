package data

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5" // the checksum that the publishers of these files give
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// A remote is a file that a data set is published as.
type remote struct {
	url    string
	size   int64
	md5    string
	dir    string           // folder that it is stored in
	unpack map[string]int64 // the names in a .tar.gz that are wanted, and their sizes; nil for a file that is kept as it is
}

// published has the files of each data set that can be downloaded.
var published = map[string][]remote{
	"cifar10": {{
		url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", size: 170052171, md5: "c32a1d4ab5d03f1284b67883e8d87530",
		dir: "cifar-10-batches-bin",
		unpack: map[string]int64{
			"cifar-10-batches-bin/data_batch_1.bin": 10000 * (1 + cifarPixels),
			"cifar-10-batches-bin/data_batch_2.bin": 10000 * (1 + cifarPixels),
			"cifar-10-batches-bin/data_batch_3.bin": 10000 * (1 + cifarPixels),
			"cifar-10-batches-bin/data_batch_4.bin": 10000 * (1 + cifarPixels),
			"cifar-10-batches-bin/data_batch_5.bin": 10000 * (1 + cifarPixels),
			"cifar-10-batches-bin/test_batch.bin":   10000 * (1 + cifarPixels),
		},
	}},
	"cifar100": {{
		url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", size: 168513733, md5: "03b5dce01913d631647c71ecec9e9cb8",
		dir: "cifar-100-binary",
		unpack: map[string]int64{
			"cifar-100-binary/train.bin": 50000 * (2 + cifarPixels),
			"cifar-100-binary/test.bin":  10000 * (2 + cifarPixels),
		},
	}},
	"mnist": {
		{url: mnistURL + "train-images-idx3-ubyte.gz", size: 9912422, md5: "f68b3c2dcbeaaa9fbdd348bbdeb94873", dir: "mnist"},
		{url: mnistURL + "train-labels-idx1-ubyte.gz", size: 28881, md5: "d53e105ee54ea40749a09fcbcd1e9432", dir: "mnist"},
		{url: mnistURL + "t10k-images-idx3-ubyte.gz", size: 1648877, md5: "9fb629c4189551a2d022fa330f9573f3", dir: "mnist"},
		{url: mnistURL + "t10k-labels-idx1-ubyte.gz", size: 4542, md5: "ec29112dd5afa0611ce80d1b7f02629c", dir: "mnist"},
	},
}

const mnistURL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

// Download brings the official files of cifar10, cifar100 or mnist into a folder of dir, where [Open] finds them; those
// that are there already are kept. A file's size and checksum are those published, or it is refused. An interrupted download goes
// on where it stopped, at once a few times and then when Download is called again: until a file is whole and
// checked, it is called .part. progress, if not nil, is told how many bytes of how many are there.
func Download(ctx context.Context, name, dir string, progress func(done, total int64)) error {
	files, ok := published[name]
	if !ok {
		return unknown(name, []string{"cifar10", "cifar100", "mnist: no other can be downloaded"})
	}
	d := downloader{client: http.DefaultClient, wait: time.Second, stall: time.Minute}
	return d.all(ctx, files, dir, progress)
}

type downloader struct {
	client *http.Client
	wait   time.Duration // before a second attempt; doubled before each further one
	stall  time.Duration // without a byte after which an attempt ends
}

// attempts is how often a file is asked for before the caller has to ask again.
const attempts = 5

func (d downloader) all(ctx context.Context, files []remote, dir string, progress func(done, total int64)) error {
	var done, total int64
	for _, f := range files {
		total += f.size
	}
	for _, f := range files {
		report := func(n int64) {
			if progress != nil {
				progress(done+n, total)
			}
		}
		if err := d.one(ctx, f, filepath.Join(dir, f.dir), report); err != nil {
			return err
		}
		done += f.size
		report(0)
	}
	return nil
}

// one brings a file into dir, which is made if it is missing.
func (d downloader) one(ctx context.Context, f remote, dir string, report func(int64)) error {
	if f.isIn(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	final := filepath.Join(dir, path.Base(f.url))
	part := final + ".part"
	if err := d.fetch(ctx, f, part, report); err != nil {
		return err
	}
	if f.unpack == nil {
		return os.Rename(part, final)
	}
	if err := f.extract(ctx, part, dir); err != nil {
		return err
	}
	return os.Remove(part)
}

// isIn reports whether the file, or all that is wanted of it, is in dir. A name is given to whole files only; the checks
// are for what came there in another way.
func (f remote) isIn(dir string) bool {
	if f.unpack == nil {
		sum, err := md5Of(filepath.Join(dir, path.Base(f.url)))
		return err == nil && sum == f.md5
	}
	for name, size := range f.unpack {
		if info, err := os.Stat(filepath.Join(dir, path.Base(name))); err != nil || !info.Mode().IsRegular() || info.Size() != size {
			return false
		}
	}
	return true
}

// errRefused marks what another attempt would not mend.
var errRefused = errors.New("refused")

// fetch completes part and checks it.
func (d downloader) fetch(ctx context.Context, f remote, part string, report func(int64)) error {
	wait := d.wait
	for attempt := 1; ; attempt++ {
		resumed, err := d.attempt(ctx, f, part, report)
		if err == nil {
			var sum string
			if sum, err = md5Of(part); err == nil && sum == f.md5 {
				return nil
			}
			if err != nil {
				return fmt.Errorf("download: %w", err)
			}
			if err := os.Remove(part); err != nil {
				return fmt.Errorf("download: %w", err)
			}
			err = fmt.Errorf("%s: MD5 %s, expected %s", f.url, sum, f.md5)
			if !resumed {
				return err
			}
			// What was there before may have been the beginning of something else: once more, from nothing.
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("download of %s interrupted with %d of %d bytes kept in %s: %w", f.url, sizeOf(part), f.size, part, ctx.Err())
		case errors.Is(err, errRefused):
			if sizeOf(part) == 0 {
				err = errors.Join(err, os.Remove(part))
			}
			return err
		case attempt == attempts:
			return fmt.Errorf("download stopped with %d of %d bytes kept in %s: %w", sizeOf(part), f.size, part, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait *= 2
	}
}

// attempt asks for what part lacks and adds it. It returns nil when part has the file's size, and whether some of part was
// there before.
func (d downloader) attempt(ctx context.Context, f remote, part string, report func(int64)) (resumed bool, err error) {
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errRefused, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	have, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if have == f.size {
		return true, nil
	}
	if have > f.size {
		if have, err = 0, restart(out); err != nil {
			return false, err
		}
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("no data for %v", d.stall)) })
	defer idle.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errRefused, err)
	}
	// Otherwise the client may unpack a .gz on the way.
	request.Header.Set("Accept-Encoding", "identity")
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := d.client.Do(request)
	if err != nil {
		return have > 0, cause(ctx, err)
	}
	defer response.Body.Close()

	length := response.ContentLength // -1 if it is not said
	switch response.StatusCode {
	case http.StatusPartialContent:
		var from, to, total int64
		said := response.Header.Get("Content-Range")
		if _, err := fmt.Sscanf(said, "bytes %d-%d/%d", &from, &to, &total); err != nil || have == 0 || from != have || total != f.size {
			// The file there is not the one that part is the beginning of.
			return false, errors.Join(fmt.Errorf("%s: the server sent the range %q, expected bytes %d-%d/%d",
				f.url, said, have, f.size-1, f.size), restart(out))
		}
		if length >= 0 {
			length += have
		}
	case http.StatusOK:
		// The whole file, asked for or not.
		if have, err = 0, restart(out); err != nil {
			return false, err
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return false, errors.Join(fmt.Errorf("%s: the server has no byte %d, expected %d bytes", f.url, have, f.size), restart(out))
	default:
		err := fmt.Errorf("%s: the server answered %q, expected 200 OK", f.url, response.Status)
		if response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests {
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return have > 0, err
	}
	resumed = have > 0

	body := &watched{response.Body, func(n int) {
		idle.Reset(d.stall)
		have += int64(n)
		report(have)
	}}
	if !resumed {
		start := make([]byte, 256)
		n, _ := io.ReadFull(response.Body, start)
		if start = start[:n]; isHTML(start) {
			return false, fmt.Errorf("%w: %s: the server sent a web page, expected a file of %d bytes", errRefused, f.url, f.size)
		}
		body.Reader = io.MultiReader(bytes.NewReader(start), response.Body)
	}
	if length >= 0 && length != f.size {
		return resumed, fmt.Errorf("%w: %s: the server's file has %d bytes, expected %d", errRefused, f.url, length, f.size)
	}
	// One byte more than is missing shows a file that is too long.
	_, err = io.Copy(out, io.LimitReader(body, f.size-have+1))
	switch {
	case have > f.size:
		return resumed, errors.Join(fmt.Errorf("%w: %s: the server sent more than the expected %d bytes", errRefused, f.url, f.size), restart(out))
	case have < f.size:
		return resumed, fmt.Errorf("%s: the connection ended at offset %d, expected %d bytes: %w", f.url, have, f.size, cause(ctx, orUnexpected(err)))
	}
	return resumed, out.Sync()
}

// watched tells of every read.
type watched struct {
	io.Reader
	read func(n int)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.read(n)
	return n, err
}

func restart(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// cause is why the context ended, or err if it did not.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func md5Of(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := md5.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// slack is what an archive may hold beside the files that are wanted: headers, padding and notes.
const slack = 1 << 20

// extract writes the wanted files of a .tar.gz into dir.
func (f remote) extract(ctx context.Context, archive, dir string) error {
	in, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return fmt.Errorf("%s: offset 0: not a whole gzip header: %w", archive, err)
	}
	limit := int64(slack)
	for _, size := range f.unpack {
		limit += size
	}
	bounded := &io.LimitedReader{R: z, N: limit}
	t := tar.NewReader(bounded)
	found := map[string]bool{}
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: unpacking interrupted: %w", archive, ctx.Err())
		}
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = f.extractOne(h, t, dir, found)
		}
		if err != nil && bounded.N <= 0 {
			err = fmt.Errorf("%s: unpacks to more than the expected %d bytes", archive, limit)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	for name := range f.unpack {
		if !found[name] {
			return fmt.Errorf("%s: has no %s", archive, name)
		}
	}
	return nil
}

func (f remote) extractOne(h *tar.Header, from io.Reader, dir string, found map[string]bool) error {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%q is a link or a device, expected files and folders only", h.Name)
	}
	if !fs.ValidPath(strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")) {
		return fmt.Errorf("%q leads out of the archive", h.Name)
	}
	name := path.Clean(h.Name)
	size, wanted := f.unpack[name]
	if h.Typeflag == tar.TypeDir || !wanted {
		return nil
	}
	if h.Size != size {
		return fmt.Errorf("%q has %d bytes, expected %d", h.Name, h.Size, size)
	}
	found[name] = true
	return writeFile(filepath.Join(dir, path.Base(name)), from)
}

// writeFile writes a file that has its name only once it is whole.
func writeFile(name string, from io.Reader) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
		}
	}()
	if _, err = io.Copy(temp, from); err != nil {
		return err
	}
	if err = temp.Chmod(0o644); err != nil {
		return err
	}
	if err = temp.Sync(); err != nil {
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}
