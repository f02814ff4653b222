// Package pickle reads Python pickles as data. A pickle is a program for a small stack machine; here that machine makes
// values and nothing else. What Python would import and call is asked of the reader's [Host], which names the few
// functions that it stands in for; everything else is refused.
//
// No instruction makes more than a few values of fixed size, none follows what another made, and nothing recurses, so
// that memory (about a hundred bytes for one of input, where every byte makes a value) and time are bounded by the length
// of the input, however deep, shared or cyclic its values are.
// The values may be cyclic: who walks them has to count.
package pickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
)

// The values of a pickle are nil, bool, int64, *big.Int, float64, string, []byte, Tuple, *List, *Dict and what a Host makes.
type (
	// Tuple is a Python tuple; a torch.Size is one too.
	Tuple []any
	// List is a Python list or set.
	List struct{ Items []any }
	// Func stands in for a Python function or class: REDUCE and NEWOBJ call it.
	Func func(args Tuple) (any, error)
	// Inert is a Python object that nothing here looks into. Its state is read over.
	Inert struct{ Name string }
)

// Dict is a Python dict, in the order in which keys came first.
type Dict struct {
	Keys, Values []any
	index        map[any]int
}

// Set puts a value under a key. Keys that Go cannot compare (tuples) are kept as they come.
func (d *Dict) Set(key, value any) {
	switch key.(type) {
	case nil, bool, int64, float64, string:
		if i, has := d.index[key]; has {
			d.Values[i] = value
			return
		}
		if d.index == nil {
			d.index = map[any]int{}
		}
		d.index[key] = len(d.Keys)
	}
	d.Keys, d.Values = append(d.Keys, key), append(d.Values, value)
}

// Get is the value under a key.
func (d *Dict) Get(key string) (value any, has bool) {
	i, has := d.index[key]
	if !has {
		return nil, false
	}
	return d.Values[i], true
}

// Host stands in for what a pickle imports.
type Host interface {
	// Global is the value, most often a Func, of a name such as "collections.OrderedDict", or an error that refuses it.
	Global(name string) (any, error)
	// Persistent is the value of an object that lies outside of the pickle.
	Persistent(id any) (any, error)
}

// Load reads the pickle that starts at raw[at:] and returns its value and where it ends. Errors name the byte of raw at
// which the instruction stands that cannot be followed.
func Load(raw []byte, at int, host Host) (value any, end int, err error) {
	m := &machine{raw: raw, pos: at, host: host, memo: map[uint64]any{}}
	var start int
	defer func() {
		if r := recover(); r != nil {
			failed, ours := r.(failure)
			if !ours {
				panic(r)
			}
			err = fmt.Errorf("at byte %d: %w", start, failed.error)
		}
	}()
	for {
		start = m.pos
		if start-at > maxSize {
			fail("the pickle is longer than %d MiB: what it holds beside weights should be saved elsewhere", maxSize>>20)
		}
		op := m.take(1)[0]
		if op == stop {
			return m.pop(), m.pos, nil
		}
		m.step(op)
	}
}

// failure is an error on its way through the machine up to Load.
type failure struct{ error }

func fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

type machine struct {
	raw   []byte
	pos   int
	host  Host
	stack []any
	marks []int // the height of the stack at each MARK
	memo  map[uint64]any
}

const stop = '.'

const (
	maxInteger = 256      // bytes or digits of an integer; PyTorch's longest has 10 bytes
	maxSize    = 32 << 20 // bytes of a pickle; a network of a thousand tensors takes a tenth of a megabyte
)

// step follows one instruction. Those that no protocol from 1 to 5 needs for what PyTorch writes are missing: protocol
// 0's text forms, INST, OBJ, NEWOBJ_EX, the extension registry and out-of-band buffers.
func (m *machine) step(op byte) {
	switch op {
	case 0x80: // PROTO
		if p := m.take(1)[0]; p > 5 {
			fail("the pickle is of protocol %d, expected at most 5", p)
		}
	case 0x95: // FRAME
		if n := m.uint(8); n > uint64(len(m.raw)-m.pos) {
			fail("a frame of %d bytes begins, but %d follow", n, len(m.raw)-m.pos)
		}

	case 'N': // NONE
		m.push(nil)
	case 0x88: // NEWTRUE
		m.push(true)
	case 0x89: // NEWFALSE
		m.push(false)
	case 'K': // BININT1
		m.push(int64(m.uint(1)))
	case 'M': // BININT2
		m.push(int64(m.uint(2)))
	case 'J': // BININT
		m.push(int64(int32(m.uint(4))))
	case 'I': // INT
		m.push(m.decimal())
	case 'L': // LONG
		m.push(m.long())
	case 0x8a: // LONG1
		m.push(integer(m.take(m.uint(1))))
	case 0x8b: // LONG4
		m.push(integer(m.take(m.uint(4))))
	case 'G': // BINFLOAT
		m.push(math.Float64frombits(binary.BigEndian.Uint64(m.take(8))))
	case 'X': // BINUNICODE
		m.push(string(m.take(m.uint(4))))
	case 0x8c: // SHORT_BINUNICODE
		m.push(string(m.take(m.uint(1))))
	case 0x8d: // BINUNICODE8
		m.push(string(m.take(m.uint(8))))
	case 'T': // BINSTRING
		m.push(string(m.take(m.uint(4))))
	case 'U': // SHORT_BINSTRING
		m.push(string(m.take(m.uint(1))))
	case 'B': // BINBYTES
		m.push(m.take(m.uint(4)))
	case 'C': // SHORT_BINBYTES
		m.push(m.take(m.uint(1)))
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		m.push(m.take(m.uint(8)))

	case '(': // MARK
		m.marks = append(m.marks, len(m.stack))
	case '0': // POP
		m.pop()
	case '1': // POP_MARK
		m.popMark()
	case '2': // DUP
		top := m.pop()
		m.push(top)
		m.push(top)
	case 'q': // BINPUT
		m.memo[m.uint(1)] = m.top()
	case 'r': // LONG_BINPUT
		m.memo[m.uint(4)] = m.top()
	case 0x94: // MEMOIZE
		m.memo[uint64(len(m.memo))] = m.top()
	case 'h': // BINGET
		m.recall(m.uint(1))
	case 'j': // LONG_BINGET
		m.recall(m.uint(4))

	case ')': // EMPTY_TUPLE
		m.push(Tuple(nil))
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		t := make(Tuple, op-0x84)
		for i := range t {
			t[len(t)-1-i] = m.pop()
		}
		m.push(t)
	case 't': // TUPLE
		m.push(Tuple(m.popMark()))
	case ']', 0x8f: // EMPTY_LIST, EMPTY_SET
		m.push(&List{})
	case 0x91: // FROZENSET
		m.push(&List{m.popMark()})
	case 'a': // APPEND
		item := m.pop()
		m.extend(item)
	case 'e', 0x90: // APPENDS, ADDITEMS
		items := m.popMark()
		m.extend(items...)
	case '}': // EMPTY_DICT
		m.push(&Dict{})
	case 's': // SETITEM
		value := m.pop()
		key := m.pop()
		m.dict().Set(key, value)
	case 'u': // SETITEMS
		items := m.popMark()
		if len(items)%2 != 0 {
			fail("a dict gets %d keys and values, expected pairs", len(items))
		}
		d := m.dict()
		for i := 0; i < len(items); i += 2 {
			d.Set(items[i], items[i+1])
		}

	case 'c': // GLOBAL
		module := m.line()
		m.global(module, m.line())
	case 0x93: // STACK_GLOBAL
		name, isText := m.pop().(string)
		module, alsoText := m.pop().(string)
		if !isText || !alsoText {
			fail("a name to import is no text")
		}
		m.global(module, name)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, isTuple := m.pop().(Tuple)
		function, callable := m.pop().(Func)
		if !isTuple || !callable {
			fail("something is called that is no function, or not with a tuple")
		}
		m.push(must(function(args)))
	case 'b': // BUILD
		m.pop()
		switch v := m.top().(type) {
		case *Dict, Inert:
		default:
			fail("attributes are set on %s, expected an object", Kind(v))
		}
	case 'Q': // BINPERSID
		m.push(must(m.host.Persistent(m.pop())))
	default:
		fail("instruction 0x%02x is none that PyTorch writes", op)
	}
}

func must(value any, err error) any {
	if err != nil {
		panic(failure{err})
	}
	return value
}

// take is the next n bytes.
func (m *machine) take(n uint64) []byte {
	if rest := len(m.raw) - m.pos; n > uint64(rest) {
		fail("the file ends inside a pickle: %d bytes are expected, %d follow", n, rest)
	}
	from := m.pos
	m.pos += int(n)
	return m.raw[from:m.pos:m.pos]
}

// uint is a little-endian number of n bytes.
func (m *machine) uint(n uint64) uint64 {
	var b [8]byte
	copy(b[:], m.take(n))
	return binary.LittleEndian.Uint64(b[:])
}

// line is the text up to the next line break.
func (m *machine) line() string {
	i := bytes.IndexByte(m.raw[m.pos:], '\n')
	if i < 0 {
		fail("the file ends inside a line of a pickle")
	}
	text := m.take(uint64(i))
	m.take(1)
	return string(text)
}

// decimal is an integer as text; protocol 1 writes True and False as 01 and 00.
func (m *machine) decimal() any {
	switch text := m.line(); text {
	case "01":
		return true
	case "00":
		return false
	default:
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			fail("%.40q is no integer", text)
		}
		return v
	}
}

// long is an integer of any size as text, with an L behind it.
func (m *machine) long() any {
	text := m.line()
	if len(text) > maxInteger {
		fail("an integer has %d digits, expected at most %d", len(text), maxInteger)
	}
	v, isNumber := new(big.Int).SetString(string(bytes.TrimSuffix([]byte(text), []byte("L"))), 10)
	if !isNumber {
		fail("%.40q is no integer", text)
	}
	return narrow(v)
}

// integer is a two's complement number, little-endian.
func integer(b []byte) any {
	if len(b) > maxInteger {
		fail("an integer has %d bytes, expected at most %d", len(b), maxInteger)
	}
	v := new(big.Int)
	for i := len(b) - 1; i >= 0; i-- {
		v.Or(v.Lsh(v, 8), big.NewInt(int64(b[i])))
	}
	if len(b) > 0 && b[len(b)-1] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return narrow(v)
}

func narrow(v *big.Int) any {
	if v.IsInt64() {
		return v.Int64()
	}
	return v
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// top is the last value above the last mark.
func (m *machine) top() any {
	floor := 0
	if n := len(m.marks); n > 0 {
		floor = m.marks[n-1]
	}
	if len(m.stack) <= floor {
		fail("a value is needed, but the stack is empty")
	}
	return m.stack[len(m.stack)-1]
}

func (m *machine) pop() any {
	v := m.top()
	m.stack[len(m.stack)-1] = nil
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

// popMark is what was pushed since the last mark, which goes too.
func (m *machine) popMark() []any {
	n := len(m.marks)
	if n == 0 {
		fail("a mark is needed, but there is none")
	}
	floor := m.marks[n-1]
	m.marks = m.marks[:n-1]
	values := append([]any(nil), m.stack[floor:]...)
	clear(m.stack[floor:])
	m.stack = m.stack[:floor]
	return values
}

func (m *machine) recall(key uint64) {
	v, has := m.memo[key]
	if !has {
		fail("value %d is recalled, but none was stored there", key)
	}
	m.push(v)
}

func (m *machine) extend(items ...any) {
	l, isList := m.top().(*List)
	if !isList {
		fail("items are added to %s, expected a list", Kind(m.top()))
	}
	l.Items = append(l.Items, items...)
}

func (m *machine) dict() *Dict {
	d, isDict := m.top().(*Dict)
	if !isDict {
		fail("entries are added to %s, expected a dict", Kind(m.top()))
	}
	return d
}

func (m *machine) global(module, name string) {
	v, err := m.host.Global(module + "." + name)
	if err != nil {
		panic(failure{err})
	}
	m.push(v)
}

// Kind says in a word what a value is; it never looks into one, as values may be cyclic.
func Kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64, *big.Int:
		return "an integer"
	case float64:
		return "a float"
	case string:
		return "text"
	case []byte:
		return "bytes"
	case Tuple:
		return "a tuple"
	case *List:
		return "a list"
	case *Dict:
		return "a dict"
	case Func:
		return "a function"
	case Inert:
		return "a " + v.Name
	}
	return "an object"
}
