package train

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Reporter is told how a run goes. Times come with what it is told; it needs no clock.
type Reporter interface {
	// Begin says what will be done, and from where on if the run is resumed.
	Begin(p Plan)
	// Step follows every update.
	Step(s Status)
	// Validating precedes the validation of an epoch, counted from 1.
	Validating(epoch int)
	// Epoch follows the validation.
	Epoch(l Line)
	// Note is a remark, a sentence.
	Note(text string)
	// End is the last call, however the run ended.
	End()
}

// Plan is what a run is about to do.
type Plan struct {
	Dir                        string
	Epochs, Batches, BatchSize int
	Step                       int // updates already made
}

// Status is how far a run is.
type Status struct {
	Epoch, Epochs   int // counted from 1
	Batch, Batches  int // counted from 1
	Loss            float64
	ImagesPerSecond float64
	Elapsed         time.Duration // since it was started or resumed
	Remaining       time.Duration // at the pace since then
}

// NewReporter reports on a terminal with a line that moves, anywhere else with a line every ten seconds and one per
// epoch, and not at all where quiet is set.
func NewReporter(w io.Writer, quiet bool) Reporter {
	if quiet {
		return silent{}
	}
	if f, isFile := w.(*os.File); isFile && term.IsTerminal(int(f.Fd())) {
		return &Bar{W: w, Every: 100 * time.Millisecond}
	}
	return &Lines{W: w, Every: 10 * time.Second}
}

type silent struct{}

func (silent) Begin(Plan)     {}
func (silent) Step(Status)    {}
func (silent) Validating(int) {}
func (silent) Epoch(Line)     {}
func (silent) Note(string)    {}
func (silent) End()           {}

// Lines reports in plain lines.
type Lines struct {
	W     io.Writer
	Every time.Duration // least time between two lines inside an epoch
	epochs
	next time.Duration
}

// Begin prints the plan.
func (l *Lines) Begin(p Plan) {
	l.begin(l.W, p)
	l.next = l.Every
}

// Step prints a line if the last one is long enough ago.
func (l *Lines) Step(s Status) {
	if s.Elapsed >= l.next {
		l.next = s.Elapsed + l.Every
		fmt.Fprintf(l.W, "epoch %d/%d batch %d/%d  %s\n", s.Epoch, s.Epochs, s.Batch, s.Batches, s.pace())
	}
}

// Validating prints nothing.
func (l *Lines) Validating(int) {}

// Epoch prints the epoch's line.
func (l *Lines) Epoch(e Line) { fmt.Fprintln(l.W, l.line(e)) }

// Note prints the remark.
func (l *Lines) Note(text string) { fmt.Fprintln(l.W, text) }

// End prints nothing.
func (l *Lines) End() {}

// Bar reports on a terminal: finished epochs as lines, the one under way as a bar that is drawn over.
type Bar struct {
	W     io.Writer
	Every time.Duration // least time between two drawings
	epochs
	next  time.Duration
	shown bool
}

// Begin prints the plan.
func (b *Bar) Begin(p Plan) { b.begin(b.W, p) }

// Step draws the bar anew if the last drawing is long enough ago or the epoch is over.
func (b *Bar) Step(s Status) {
	if s.Elapsed < b.next && s.Batch < s.Batches {
		return
	}
	b.next = s.Elapsed + b.Every
	const width = 24
	full := width * s.Batch / s.Batches
	b.draw(fmt.Sprintf("epoch %d/%d [%s%s] %3d%%  %s", s.Epoch, s.Epochs, strings.Repeat("=", full), strings.Repeat(" ", width-full),
		100*s.Batch/s.Batches, s.pace()))
}

// Validating says so in place of the bar.
func (b *Bar) Validating(epoch int) {
	b.draw(fmt.Sprintf("epoch %d/%d validating", epoch, b.plan.Epochs))
}

// Epoch prints the epoch's line over the bar.
func (b *Bar) Epoch(e Line) { b.print(b.line(e)) }

// Note prints the remark over the bar.
func (b *Bar) Note(text string) { b.print(text) }

// End leaves what is drawn and starts a new line.
func (b *Bar) End() {
	if b.shown {
		fmt.Fprintln(b.W)
		b.shown = false
	}
}

// draw replaces the line: back to its start, the text, and clear the rest of the old one.
func (b *Bar) draw(text string) {
	fmt.Fprintf(b.W, "\r%s\x1b[K", text)
	b.shown = true
}

func (b *Bar) print(text string) {
	if b.shown {
		fmt.Fprint(b.W, "\r\x1b[K")
		b.shown = false
	}
	fmt.Fprintln(b.W, text)
}

// epochs holds what the two reporters have in common.
type epochs struct{ plan Plan }

func (e *epochs) begin(w io.Writer, p Plan) {
	e.plan = p
	if p.Step > 0 {
		fmt.Fprintf(w, "going on in %s after step %d of %d\n", p.Dir, p.Step, p.Epochs*p.Batches)
		return
	}
	fmt.Fprintf(w, "training in %s: %d epochs of %d batches of %d images\n", p.Dir, p.Epochs, p.Batches, p.BatchSize)
}

func (e *epochs) line(l Line) string {
	text := fmt.Sprintf("epoch %d/%d  loss %.4f", l.Epoch, e.plan.Epochs, l.Loss)
	if l.Score != nil {
		text += fmt.Sprintf("  held-out (%d) clean %.2f%%", l.Images, 100*l.Clean)
		if l.Attack != "" {
			text += fmt.Sprintf(", %s %.2f%%", l.Attack, 100*l.Robust)
		}
	}
	if l.Best {
		text += "  (best)"
	}
	return text + fmt.Sprintf("  %.0f images/s  %s", l.ImagesPerSecond, clock(time.Duration(l.Seconds*float64(time.Second))))
}

func (s Status) pace() string {
	return fmt.Sprintf("loss %.4f  %.0f images/s  %s left", s.Loss, s.ImagesPerSecond, clock(s.Remaining))
}

// clock writes a duration to the second: 1h02m03s.
func clock(d time.Duration) string { return d.Round(time.Second).String() }
