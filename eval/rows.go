package eval

// rows are those of an evaluation as they come in, in any order.
type rows struct {
	header Header
	all    []*Row // by position in the set
	count  int    // rows that are known

	// enough is set once the first images of the set, all known, have intervals as tight as the header asks for.
	enough   bool
	first    int    // images at the beginning of the set that are known and counted
	standing []Rate // among those, under every suite; clean where there is none
}

func newRows(n int, header Header) *rows {
	return &rows{header: header, all: make([]*Row, n), standing: make([]Rate, max(len(header.Attacks), 1))}
}

// add takes the row of the image at a position.
func (r *rows) add(at int, row Row) {
	r.all[at] = &row
	r.count++
	for !r.enough && r.first < len(r.all) && r.all[r.first] != nil {
		row := r.all[r.first]
		for i := range r.standing {
			r.standing[i].count(row.Prediction == row.Label && (i >= len(row.Attacks) || !row.Attacks[i].Broken))
		}
		r.first++
		r.enough = r.header.Until > 0 && r.reach() <= r.header.Until
	}
}

// reach is how far an interval reaches from its accuracy at most.
func (r *rows) reach() float64 {
	var far float64
	for _, rate := range r.standing {
		low, high := rate.Wilson()
		far = max(far, rate.Value()-low, high-rate.Value())
	}
	return far
}

// missing are the positions that no row is known for.
func (r *rows) missing() []int {
	var positions []int
	for at, row := range r.all {
		if row == nil {
			positions = append(positions, at)
		}
	}
	return positions
}

// known are the rows in the order of the set; where the first of them are enough, those.
func (r *rows) known() []Row {
	all := r.all
	if r.enough {
		all = all[:r.first]
	}
	var known []Row
	for _, row := range all {
		if row != nil {
			known = append(known, *row)
		}
	}
	return known
}

// Complete reports whether the evaluation came to its end.
func (r *Result) Complete() bool {
	if len(r.Rows) == r.Header.Images {
		return true
	}
	seen := newRows(len(r.Rows), r.Header)
	for at, row := range r.Rows {
		seen.add(at, row)
	}
	return seen.enough && seen.first == len(r.Rows)
}
