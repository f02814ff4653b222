package report

import (
	"cmp"
	"fmt"
	"slices"
)

// Class is how often a model is right on the images of one class.
type Class struct {
	Name          string
	Clean, Robust Accuracy // without an attack and under one
}

// mostClasses are as many as a figure shows.
const mostClasses = 20

// Classes draws the accuracy in each class, clean and under an attack, the worst under attack first. Of many classes it
// shows the worst.
func Classes(title string, c Conditions, attack string, classes []Class) (*Figure, error) {
	classes = slices.DeleteFunc(slices.Clone(classes), func(c Class) bool { return c.Clean.Total == 0 || c.Robust.Total == 0 })
	slices.SortStableFunc(classes, func(a, b Class) int { return cmp.Compare(a.Robust.value(), b.Robust.value()) })
	if len(classes) > mostClasses {
		title += fmt.Sprintf(" (the worst %d of %d)", mostClasses, len(classes))
		classes = classes[:mostClasses]
	}
	var rows []bar
	for _, class := range classes {
		rows = append(rows, bar{
			name: class.Name, long: class.Clean.value(), short: class.Robust.value(),
			says: fmt.Sprintf("%s: clean %s; %s %s", class.Name, within(class.Clean), head(attack, c), within(class.Robust)),
		})
	}
	return bars(title, "clean", head(attack, c), rows)
}

// WorstClasses draws for each model its accuracy under an attack and that in its worst class.
func WorstClasses(title string, c Conditions, attack string, models []Model) (*Figure, error) {
	var rows []bar
	for _, m := range models {
		a := m.find(attack)
		if a.Total == 0 || a.WorstClass == "" {
			continue
		}
		rows = append(rows, bar{
			name: m.Name, long: a.value(), short: a.WorstAccuracy, note: a.WorstClass,
			says: fmt.Sprintf("%s, %s: %s; worst class %s, %s%%", m.Name, head(attack, c), within(a), a.WorstClass, Percent(a.WorstAccuracy)),
		})
	}
	return bars(title, "all classes, "+head(attack, c), "worst class", rows)
}

// bar is a row of a figure: two shares, the lower of which is written out with a note.
type bar struct {
	name        string
	long, short float64
	note, says  string
}

// value is what stands beside the bars.
func (b bar) value() string {
	if b.note == "" {
		return Percent(b.short)
	}
	return Percent(b.short) + " " + b.note
}

// bars draws a wide pale bar and a narrow strong one in each row. It is an error if there are none.
func bars(title, long, short string, rows []bar) (*Figure, error) {
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: there is nothing to draw", title)
	}
	const width, room, thick, thin = 480, 26., 16., 8.
	names, values := 0., 0.
	for _, r := range rows {
		names, values = max(names, textWidth(r.name, textSize)), max(values, textWidth(r.value(), softSize))
	}
	names, values = min(names, width*0.4), min(values, width*0.25)
	f, top := newFigure(title, width, room*float64(len(rows))+84)
	top += 26
	x := newAxis(0, 100, 5, margin+names+10, width-margin-values-8)
	bottom := top + room*float64(len(rows))
	for _, v := range x.ticks {
		f.line("grid", x.at(v), top, x.at(v), bottom)
		f.text(x.at(v), bottom+17, "middle", "soft", x.label(v))
	}
	f.text((x.from+x.to)/2, bottom+36, "middle", "", "accuracy, %")
	f.printf(`<rect class="bar f0" opacity=".28" x="%g" y="%s" width="14" height="12"/>`, margin, number(top-20))
	f.text(margin+19, top-10, "start", "soft", long)
	at := margin + 19 + textWidth(long, softSize) + 16
	f.printf(`<rect class="bar f0" x="%s" y="%s" width="14" height="7"/>`, number(at), number(top-17.5))
	f.text(at+19, top-10, "start", "soft", short)
	for i, r := range rows {
		y := top + room*(float64(i)+0.5)
		f.text(x.from-8, y+4, "end", "", clip(r.name, textSize, names))
		f.printf(`<g>%s<rect class="bar f0" opacity=".28" x="%s" y="%s" width="%s" height="%s"/>`+
			`<rect class="bar f0" x="%s" y="%s" width="%s" height="%s"/></g>`, tip(r.says),
			number(x.from), number(y-thick/2), number(x.at(100*r.long)-x.from), number(thick),
			number(x.from), number(y-thin/2), number(x.at(100*r.short)-x.from), number(thin))
		f.text(x.at(100*max(r.long, r.short))+6, y+4, "start", "soft", clip(r.value(), softSize, values))
	}
	f.line("axis", x.from, top, x.from, bottom)
	return f, nil
}
