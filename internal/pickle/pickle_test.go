package pickle

import (
	"errors"
	"math/big"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// small allows one function and one class, and makes a persistent object of text.
type small struct{}

func (small) Global(name string) (any, error) {
	switch name {
	case "a.pair":
		return Func(func(args Tuple) (any, error) {
			if len(args) != 2 {
				return nil, errors.New("a pair takes two")
			}
			return &List{args}, nil
		}), nil
	case "a.Thing":
		return Func(func(Tuple) (any, error) { return Inert{name}, nil }), nil
	case "a.constant":
		return "constant", nil
	}
	return nil, errors.New(name + " is refused")
}

func (small) Persistent(id any) (any, error) {
	text, isText := id.(string)
	if !isText {
		return nil, errors.New("an id is text here")
	}
	return "persistent " + text, nil
}

func dict(pairs ...any) *Dict {
	d := &Dict{}
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i], pairs[i+1])
	}
	return d
}

// Each instruction, in the bytes that Python 3.11 writes.
func TestValues(t *testing.T) {
	huge, _ := new(big.Int).SetString("1950a86a20f9469cfc6c", 16)
	for name, c := range map[string]struct {
		raw  string
		want any
	}{
		"None":          {"\x80\x02N.", nil},
		"bools":         {"\x80\x02\x88\x89\x86.", Tuple{true, false}},
		"bools of 1":    {"(I01\nI00\nt.", Tuple{true, false}},
		"small":         {"\x80\x02K\x07M\x00\x01J\xff\xff\xff\xff\x87.", Tuple{int64(7), int64(256), int64(-1)}},
		"text integers": {"(I-12\nL34L\nt.", Tuple{int64(-12), int64(34)}},
		"long":          {"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", huge},
		"negative long": {"\x80\x02\x8a\x02\x00\xff.", int64(-256)},
		"no bytes":      {"\x80\x02\x8a\x00.", int64(0)},
		"long4":         {"\x80\x02\x8b\x03\x00\x00\x00\x00\x00\x80.", int64(-1 << 23)},
		"float":         {"\x80\x02G?\xf8\x00\x00\x00\x00\x00\x00.", 1.5},
		"texts":         {"\x80\x04X\x01\x00\x00\x00a\x8c\x01b\x8d\x01\x00\x00\x00\x00\x00\x00\x00c\x87.", Tuple{"a", "b", "c"}},
		"old texts":     {"U\x01aT\x01\x00\x00\x00b\x86.", Tuple{"a", "b"}},
		"bytes":         {"C\x01aB\x01\x00\x00\x00b\x8e\x01\x00\x00\x00\x00\x00\x00\x00c\x87.", Tuple{[]byte("a"), []byte("b"), []byte("c")}},
		"tuples":        {")K\x01\x85(K\x02t\x87.", Tuple{Tuple(nil), Tuple{int64(1)}, Tuple{int64(2)}}},
		"list":          {"](K\x01K\x02eK\x03a.", &List{[]any{int64(1), int64(2), int64(3)}}},
		"sets":          {"\x8f(K\x01\x90(K\x02\x91\x86.", Tuple{&List{[]any{int64(1)}}, &List{[]any{int64(2)}}}},
		"dict":          {"}(U\x01aK\x01U\x01bK\x02uU\x01aK\x03s.", dict("a", int64(3), "b", int64(2))},
		"tuple as key":  {"}K\x01\x85Ns.", dict(Tuple{int64(1)}, nil)},
		"memo":          {"\x80\x04]\x94q\x05h\x00h\x05r\x00\x01\x00\x00j\x00\x01\x00\x000\x87.", Tuple{&List{}, &List{}, &List{}}},
		"pops":          {"N2(NN10.", nil},
		"frame":         {"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", nil},
		"global":        {"ca\nconstant\n.", "constant"},
		"stack global":  {"\x8c\x01a\x8c\x08constant\x93.", "constant"},
		"reduce":        {"ca\npair\n(K\x01K\x02tR.", &List{[]any{int64(1), int64(2)}}},
		"new object":    {"ca\nThing\n)\x81}b.", Inert{"a.Thing"}},
		"persistent":    {"U\x01aQ.", "persistent a"},
	} {
		got, end, err := Load([]byte(c.raw+"more"), 0, small{})
		if err != nil || !reflect.DeepEqual(got, c.want) || end != len(c.raw) {
			t.Errorf("%s: got %v up to byte %d of %d, %v; expected %v", name, got, end, len(c.raw), err, c.want)
		}
	}
}

// refused are pickles that are not followed, and what the error says.
var refused = map[string]struct{ raw, want string }{
	"empty":             {"", "at byte 0: the file ends"},
	"cut off":           {"X\x05\x00\x00\x00ab", "at byte 0: the file ends inside a pickle: 5 bytes are expected, 2 follow"},
	"cut off line":      {"Nca\nsys", "at byte 1: the file ends inside a line"},
	"long text":         {"N\x8d\xff\xff\xff\xff\xff\xff\xff\xffa", "at byte 1: the file ends"},
	"lying frame":       {"\x80\x04\x95\x00\x00\x00\x00\x01\x00\x00\x00N.", "at byte 2: a frame of"},
	"protocol":          {"\x80\x06N.", "protocol 6"},
	"callable":          {"NNcposix\nsystem\n(U\x02lstR.", "at byte 2: posix.system is refused"},
	"stack callable":    {"\x8c\x08builtins\x8c\x04eval\x93.", "at byte 16: builtins.eval is refused"},
	"bad arguments":     {"ca\npair\n)R.", "at byte 9: a pair takes two"},
	"call of a value":   {"K\x01)R.", "no function"},
	"call with a list":  {"ca\npair\n]R.", "not with a tuple"},
	"state of a value":  {"K\x01Nb.", "attributes are set on an integer"},
	"persistent":        {"NQ.", "at byte 1: an id is text here"},
	"empty stack":       {".", "the stack is empty"},
	"below the mark":    {"N(0.", "the stack is empty"},
	"no mark":           {"Nt.", "there is none"},
	"odd dict":          {"}(Nu.", "1 keys and values"},
	"no dict":           {"]NNs.", "entries are added to a list"},
	"no list":           {"}Na.", "items are added to a dict"},
	"recall":            {"h\x01.", "value 1 is recalled"},
	"extension":         {"\x82\x01.", "instruction 0x82"},
	"instance":          {"(ios\nsystem\n.", "instruction 0x69"},
	"protocol 0 text":   {"Vabc\n.", "instruction 0x56"},
	"buffer":            {"\x97.", "instruction 0x97"},
	"integer":           {"I1x\n.", `"1x" is no integer`},
	"long integer":      {"L" + strings.Repeat("9", 300) + "L\n.", "expected at most 256"},
	"long long":         {"\x8b\x00\x00\x01\x00" + strings.Repeat("x", 1<<16) + ".", "expected at most 256"},
	"name that is none": {"NN\x93.", "no text"},
}

func TestRefused(t *testing.T) {
	for name, c := range refused {
		if _, _, err := Load([]byte(c.raw), 0, small{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, expected it to say %q", name, err, c.want)
		}
	}
}

// Offsets count from the start of the file, wherever in it the pickle is.
func TestOffsetsAreTheFiles(t *testing.T) {
	if _, _, err := Load([]byte("12345Nh\x01."), 5, small{}); err == nil || !strings.Contains(err.Error(), "at byte 6:") {
		t.Errorf("error is %v, expected it to name byte 6", err)
	}
}

// hostile are pickles that are followed, whose values are cyclic, deep or shared more often than could be written out.
var hostile = map[string]string{
	"cyclic list": "]q\x00h\x00a.",
	"cyclic dict": "}q\x00U\x01ah\x00s.",
	"deep":        strings.Repeat("]", 1<<16) + strings.Repeat("a", 1<<16-1) + ".",
	"deep tuple":  "N" + strings.Repeat("\x85", 1<<16) + ".",
	"doubling":    "N" + strings.Repeat("2\x86", 1<<12) + ".", // 2^4096 leaves
	"marks":       strings.Repeat("(", 1<<16) + "N.",
}

func TestHostileValuesEnd(t *testing.T) {
	for name, raw := range hostile {
		v, _, err := Load([]byte(raw), 0, small{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if Kind(v) == "" {
			t.Errorf("%s has no kind", name)
		}
	}
}

// The instructions that make most of a byte stay within a few hundred bytes for it, what is thrown away included.
func TestMemoryIsBounded(t *testing.T) {
	const n = 1 << 18
	for name, unit := range map[string]string{
		"None": "N", "dicts": "}", "lists": "]", "marks": "(", "copies": "N2", "memo": "N\x94", "tuples": "N\x85", "calls": "ca\nThing\n)R",
		"integers": "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "entries": "}J\x00\x00\x00\x00Ns",
	} {
		raw := []byte(strings.Repeat(unit, n/len(unit)) + "N.")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := Load(raw, 0, small{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if share := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(raw)); share > 400 {
			t.Errorf("%s: %.0f bytes for one of the pickle, expected at most 400", name, share)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, c := range refused {
		if len(c.raw) < 4096 {
			f.Add([]byte(c.raw))
		}
	}
	for _, raw := range hostile {
		f.Add([]byte(raw[len(raw)-min(len(raw), 64):]))
	}
	f.Add([]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}(\x8c\x01aK\x01\x8c\x01b\x8a\x01\xffu."))
	f.Add([]byte("ca\npair\n(K\x01K\x02tR\x8c\x01aQ\x86."))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, end, err := Load(raw, 0, small{})
		switch {
		case err == nil && (end < 1 || end > len(raw)):
			t.Errorf("the pickle ends at byte %d of %d", end, len(raw))
		case err != nil && !strings.HasPrefix(err.Error(), "at byte "):
			t.Errorf("the error names no byte: %v", err)
		}
	})
}
