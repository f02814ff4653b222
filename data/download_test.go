package data

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A host serves one file, the way answer says, and keeps the Range headers it got.
type host struct {
	*httptest.Server
	ranges []string
}

func serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, attempt int)) *host {
	h := &host{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ranges = append(h.ranges, r.Header.Get("Range"))
		answer(w, r, len(h.ranges))
	}))
	t.Cleanup(h.Close)
	return h
}

// whole answers as a good server does.
func whole(w http.ResponseWriter, r *http.Request, content []byte) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// cut sends a good answer's headers, the first n bytes of its body, and hangs up.
func cut(w http.ResponseWriter, r *http.Request, content []byte, n int) {
	rec := httptest.NewRecorder()
	whole(rec, r, content)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes()[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func (h *host) file(content []byte) remote {
	sum := md5.Sum(content)
	return remote{url: h.URL + "/set.gz", size: int64(len(content)), md5: hex.EncodeToString(sum[:]), dir: "set"}
}

var quick = downloader{client: http.DefaultClient, wait: time.Microsecond, stall: time.Minute}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// checkFile checks that dir has the file with that content, and nothing else.
func checkFile(t *testing.T, dir string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "set", "set.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Error("the file's content is wrong")
	}
	if list := names(t, filepath.Join(dir, "set")); len(list) != 1 {
		t.Errorf("the folder has %v, want the file alone", list)
	}
}

func TestDownload(t *testing.T) {
	content := noise(100_000)
	h := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { whole(w, r, content) })
	dir := t.TempDir()
	var last, calls int64
	progress := func(done, total int64) {
		if done < last || total != 100_000 {
			t.Errorf("progress from %d to %d of %d", last, done, total)
		}
		last = done
		calls++
	}
	if err := quick.all(t.Context(), []remote{h.file(content)}, dir, progress); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dir, content)
	if last != 100_000 || calls < 3 {
		t.Errorf("progress ended at %d after %d calls", last, calls)
	}
	if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil || len(h.ranges) != 1 {
		t.Errorf("a second call: %v, %d requests in all, want 1", err, len(h.ranges))
	}
	// A file of that name that is damaged is replaced.
	write(t, content[1:], dir, "set", "set.gz")
	if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dir, content)
}

func TestDownloadGoesOnByItself(t *testing.T) {
	content := noise(100_000)
	h := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
		switch attempt {
		case 1:
			cut(w, r, content, 30_000)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			cut(w, r, content, 20_000)
		default:
			whole(w, r, content)
		}
	})
	dir := t.TempDir()
	if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dir, content)
	if want := []string{"", "bytes=30000-", "bytes=30000-", "bytes=50000-"}; !slices.Equal(h.ranges, want) {
		t.Errorf("asked for %q, want %q", h.ranges, want)
	}
}

// A server that breaks off for ever is given up, and the next call goes on where it stopped.
func TestDownloadGoesOnWhenCalledAgain(t *testing.T) {
	content := noise(100_000)
	for _, ignoreRange := range []bool{false, true} {
		h := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
			if ignoreRange {
				r.Header.Del("Range")
			}
			if attempt <= attempts {
				cut(w, r, content, 10_000)
			}
			whole(w, r, content)
		})
		dir, kept := t.TempDir(), 10_000*attempts
		if ignoreRange {
			kept = 10_000
		}
		err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil)
		if want := fmt.Sprintf("download stopped with %d of 100000 bytes kept", kept); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v, want %s", err, want)
		}
		if list := names(t, filepath.Join(dir, "set")); !slices.Equal(list, []string{"set.gz.part"}) {
			t.Fatalf("the folder has %v", list)
		}
		if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
			t.Fatal(err)
		}
		checkFile(t, dir, content)
		if got, want := h.ranges[attempts], "bytes="+strconv.Itoa(kept)+"-"; got != want {
			t.Errorf("the second call asked for %q, want %q", got, want)
		}
	}
}

func TestDownloadInterrupted(t *testing.T) {
	content := noise(100_000)
	h := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
		if attempt > 1 {
			whole(w, r, content)
			return
		}
		w.Header().Set("Content-Length", "100000")
		w.Write(content[:40_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	err := quick.all(ctx, []remote{h.file(content)}, dir, func(done, _ int64) {
		if done == 40_000 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "40000 of 100000 bytes kept") {
		t.Fatalf("%v", err)
	}
	if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dir, content)
	if h.ranges[1] != "bytes=40000-" {
		t.Errorf("went on with %q", h.ranges[1])
	}
}

func TestDownloadStalls(t *testing.T) {
	content := noise(1000)
	h := serve(t, func(w http.ResponseWriter, r *http.Request, attempt int) {
		if attempt > 1 {
			whole(w, r, content)
			return
		}
		w.Header().Set("Content-Length", "1000")
		w.Write(content[:400])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	d, dir := quick, t.TempDir()
	d.stall = 50 * time.Millisecond
	if err := d.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dir, content)
	if !slices.Equal(h.ranges, []string{"", "bytes=400-"}) {
		t.Errorf("asked for %q", h.ranges)
	}
}

// A beginning of another file is thrown away, whoever notices: the server, or the checksum.
func TestDownloadOfAChangedFile(t *testing.T) {
	content := noise(100_000)
	for _, c := range []struct {
		name   string
		part   []byte
		answer func(w http.ResponseWriter, r *http.Request, attempt int)
	}{
		{"other bytes", make([]byte, 50_000), nil},
		{"a whole file of other bytes", make([]byte, 100_000), nil},
		{"too long", make([]byte, 100_001), nil},
		{"a web page", []byte(page), nil},
		{"another range than asked for", content[:50_000], func(w http.ResponseWriter, r *http.Request, attempt int) {
			if attempt == 1 {
				w.Header().Set("Content-Range", "bytes 40000-99999/100000")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(content[40_000:])
				return
			}
			whole(w, r, content)
		}},
		{"a range of a file of another size", content[:50_000], func(w http.ResponseWriter, r *http.Request, attempt int) {
			if attempt == 1 {
				whole(w, r, content[:90_000])
				return
			}
			whole(w, r, content)
		}},
		{"no such range", content[:50_000], func(w http.ResponseWriter, r *http.Request, attempt int) {
			if attempt == 1 {
				whole(w, r, content[:40_000])
				return
			}
			whole(w, r, content)
		}},
	} {
		if c.answer == nil {
			c.answer = func(w http.ResponseWriter, r *http.Request, _ int) { whole(w, r, content) }
		}
		h := serve(t, c.answer)
		dir := t.TempDir()
		write(t, c.part, dir, "set", "set.gz.part")
		if err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		checkFile(t, dir, content)
	}
}

func TestDownloadRefuses(t *testing.T) {
	content := noise(100_000)
	corrupt := slices.Clone(content)
	corrupt[77_777] ^= 1
	html := []byte(page + strings.Repeat(" ", 100_000-len(page)))
	// chunked hides how much is coming.
	chunked := func(b []byte) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(b)
		}
	}
	plainly := func(b []byte) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { whole(w, r, b) }
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
		asked  int
	}{
		{"corrupt", plainly(corrupt), "expected " + (&host{Server: &httptest.Server{}}).file(content).md5, 1},
		{"page", plainly([]byte(page)), "the server sent a web page, expected a file of 100000 bytes", 1},
		{"page as long as the file", plainly(html), "the server sent a web page", 1},
		{"short", plainly(content[:99_999]), "the server's file has 99999 bytes, expected 100000", 1},
		{"long", plainly(append(slices.Clone(content), 0)), "the server's file has 100001 bytes, expected 100000", 1},
		{"long, not saying so", chunked(append(slices.Clone(content), 0)), "the server sent more than the expected 100000 bytes", 1},
		{"short, not saying so", chunked(content[:99_999]), "download stopped with 99999 of 100000 bytes kept", attempts},
		{"missing", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, `the server answered "404 Not Found"`, 1},
		{"out of order", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, `the server answered "500 Internal Server Error"`, attempts},
	} {
		h := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { c.answer(w, r) })
		dir := t.TempDir()
		err := quick.all(t.Context(), []remote{h.file(content)}, dir, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), h.URL+"/set.gz") || len(h.ranges) != c.asked {
			t.Errorf("%s: %v after %d requests, want the address and %q after %d", c.name, err, len(h.ranges), c.want, c.asked)
		}
		if list := names(t, filepath.Join(dir, "set")); slices.Contains(list, "set.gz") || c.asked == 1 && len(list) != 0 {
			t.Errorf("%s: left %v", c.name, list)
		}
	}
}

// entry is a file in a .tar.gz; pack makes one.
type entry struct {
	name string
	kind byte
	size int
}

func pack(entries ...entry) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o600, Size: int64(e.size)}
		if e.kind == tar.TypeSymlink || e.kind == tar.TypeLink {
			h.Linkname = "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		w.Write(bytes.Repeat([]byte{'x'}, e.size))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func TestDownloadUnpacks(t *testing.T) {
	wanted := map[string]int64{"set/a.bin": 3000, "set/b.bin": 10}
	a, b := entry{"set/a.bin", tar.TypeReg, 3000}, entry{"set/b.bin", tar.TypeReg, 10}
	for _, c := range []struct {
		name    string
		content []byte
		want    string // of the error, or "" if there is none
	}{
		{"as expected", pack(entry{"set/", tar.TypeDir, 0}, a, entry{"set/readme.html", tar.TypeReg, 88}, b), ""},
		{"with dots", pack(entry{"./set/", tar.TypeDir, 0}, entry{"./set/a.bin", tar.TypeReg, 3000}, b), ""},
		{"one missing", pack(a), "has no set/b.bin"},
		{"another size", pack(a, entry{"set/b.bin", tar.TypeReg, 11}), `"set/b.bin" has 11 bytes, expected 10`},
		{"climbing", pack(a, b, entry{"set/../../b.bin", tar.TypeReg, 10}), `"set/../../b.bin" leads out of the archive`},
		{"absolute", pack(a, b, entry{"/tmp/b.bin", tar.TypeReg, 10}), `"/tmp/b.bin" leads out of the archive`},
		{"link", pack(a, entry{"set/b.bin", tar.TypeSymlink, 0}), `"set/b.bin" is a link or a device`},
		{"hard link", pack(a, entry{"set/b.bin", tar.TypeLink, 0}), `"set/b.bin" is a link or a device`},
		{"bomb", pack(a, entry{"set/c.bin", tar.TypeReg, 2 << 20}, b), "unpacks to more than the expected"},
		{"no archive", noise(500), "offset 0: not a whole gzip header"},
		{"no tar", zipped(noise(5000)), "archive/tar"},
		{"cut", zipped(noise(0))[:10], "unexpected EOF"},
	} {
		h := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { whole(w, r, c.content) })
		f := h.file(c.content)
		f.unpack = wanted
		dir := t.TempDir()
		err := quick.all(t.Context(), []remote{f}, dir, nil)
		list := names(t, filepath.Join(dir, "set"))
		if c.want == "" {
			if err != nil || !slices.Equal(list, []string{"a.bin", "b.bin"}) {
				t.Errorf("%s: %v, left %v", c.name, err, list)
			}
			if err := quick.all(t.Context(), []remote{f}, dir, nil); err != nil || len(h.ranges) != 1 {
				t.Errorf("%s, again: %v after %d requests in all", c.name, err, len(h.ranges))
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		for _, name := range list {
			info, err := os.Stat(filepath.Join(dir, "set", name))
			if size, ok := wanted["set/"+name]; err != nil || ok && info.Size() != size || !ok && name != "set.gz.part" {
				t.Errorf("%s: left %s of %d bytes", c.name, name, info.Size())
			}
		}
		if list := names(t, dir); len(list) != 1 {
			t.Errorf("%s: left %v outside of the set's folder", c.name, list)
		}
	}
}

// An unpacking that was interrupted is finished without a second download.
func TestDownloadFinishesUnpacking(t *testing.T) {
	content := pack(entry{"set/a.bin", tar.TypeReg, 3000}, entry{"set/b.bin", tar.TypeReg, 10})
	h := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { t.Error("asked again"); whole(w, r, content) })
	f := h.file(content)
	f.unpack = map[string]int64{"set/a.bin": 3000, "set/b.bin": 10}
	dir := t.TempDir()
	write(t, content, dir, "set", "set.gz.part")
	write(t, make([]byte, 3000), dir, "set", "a.bin")
	if err := quick.all(t.Context(), []remote{f}, dir, nil); err != nil {
		t.Fatal(err)
	}
	if list := names(t, filepath.Join(dir, "set")); !slices.Equal(list, []string{"a.bin", "b.bin"}) {
		t.Errorf("left %v", list)
	}
}

func TestDownloadIsKnown(t *testing.T) {
	for _, name := range []string{"shapes", "folder", "imagenet"} {
		if err := Download(t.Context(), name, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "want cifar10, cifar100, mnist") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(pack(entry{"set/a.bin", tar.TypeReg, 30}))
	f.Add(pack(entry{"../a.bin", tar.TypeReg, 30}))
	f.Add(pack(entry{"set/a.bin", tar.TypeSymlink, 0}))
	f.Add(pack(entry{"set/", tar.TypeDir, 0}, entry{"set/a.bin", tar.TypeReg, 31}))
	f.Add(noise(100))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		write(t, b, dir, "archive")
		err := remote{unpack: map[string]int64{"set/a.bin": 30}}.extract(t.Context(), filepath.Join(dir, "archive"), filepath.Join(dir))
		for _, name := range names(t, dir) {
			if info, err := os.Stat(filepath.Join(dir, name)); name != "archive" && (name != "a.bin" || err != nil || info.Size() != 30) {
				t.Errorf("left %s of %d bytes", name, info.Size())
			}
		}
		if _, missing := os.Stat(filepath.Join(dir, "a.bin")); err == nil && missing != nil {
			t.Error("nothing was unpacked, without an error")
		}
	})
}
