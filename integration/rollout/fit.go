// SPDX-License-Identifier: Apache-2.0

package rollout

// line is y = a + b·x.
type line struct{ a, b float64 }

func (l line) at(x float64) float64 { return l.a + l.b*x }

// fit returns the line that the points are nearest to, by least squares; of one point, the line through it and the origin.
func fit(x, y []float64) line {
	var mx, my float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	if len(x) == 1 {
		return line{b: my / mx}
	}
	var xy, xx float64
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	return line{my - xy/xx*mx, xy / xx}
}
