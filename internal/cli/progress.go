package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar is a progress bar on a terminal, and nil where there is none or it is not wanted.
func (g *globals) bar(what string, total int64, options ...progressbar.Option) *progressbar.ProgressBar {
	if f, isFile := g.env.Stderr.(*os.File); g.Quiet || !isFile || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(g.env.Stderr), progressbar.OptionSetDescription(what), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(200 * time.Millisecond), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
	}, options...)...)
}

// attackProgress tells how far an evaluation is: a bar on a terminal, a line every ten seconds elsewhere, nothing where
// that is not wanted. end clears the bar.
func (g *globals) attackProgress() (progress func(eval.Progress), end func()) {
	if bar := g.bar("attacking", -1, progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false)); bar != nil {
		return func(p eval.Progress) {
			bar.ChangeMax(p.Total)
			bar.Describe("attacking" + left(p))
			drawn(bar.Set(p.Done))
		}, func() { drawn(bar.Finish()) }
	}
	w, next := g.env.Stderr, 10*time.Second
	if g.Quiet {
		w = io.Discard
	}
	return func(p eval.Progress) {
		if p.Elapsed >= next {
			next = p.Elapsed + 10*time.Second
			fmt.Fprintf(w, "attacking: %d of %d images%s\n", p.Done, p.Total, left(p))
		}
	}, func() {}
}

// left says how long an evaluation still takes, once that is known.
func left(p eval.Progress) string {
	if p.Remaining == 0 {
		return ""
	}
	return ", " + report.Duration(p.Remaining) + " left"
}

// drawn drops the error of a progress bar: one that cannot be drawn stops nothing.
func drawn(error) {}
