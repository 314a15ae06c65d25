//! Products with the weights of a layer that were not removed, and the gradients of those alone.
//!
//! A removed weight costs nothing here, so a step of a network that is 95 % zeros does a twentieth of the multiply-adds. The
//! places of zeros follow no pattern, so vectors run over samples: `[channel][position][lane]`, where a lane is one of
//! [`LANES`] samples. Every multiply-add then has one weight, broadcast, and a vector that lies in memory as it is needed,
//! whichever weights are left. Distances ("steps") and places are in vectors.

mod channels;
pub(super) mod plain;
pub(super) mod taps;
pub(super) mod vectors;

use self::taps::{check, last_row};
use crate::Isa;
use crate::training::{Begin, Real};

pub use self::channels::{
    add_lane_totals, lane_gradient, lane_sums, relu_lane_gradient_sums, scale_lanes,
};
pub use self::taps::{Grid, LaneLayout, Plane, Taps};

/// `to[row][position] = begin + sum of weights[tap] * from[place of tap + position]`, over the taps of each row.
///
/// `from.plane` is not used, since places are in the whole array.
///
/// # Panics
/// When a vector lies outside its array, or grids and lengths disagree.
#[track_caller]
pub fn sparse_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    weights: &[T],
    begin: Begin<'_, T>,
    from: Plane<&[T]>,
    to: Plane<&mut [T]>,
) {
    assert_eq!(weights.len(), taps.len(), "weights");
    assert_eq!(from.grid.size, to.grid.size, "positions");
    if let Begin::Bias(bias) = begin {
        assert_eq!(bias.len(), taps.rows(), "bias");
    }
    if taps.rows() == 0 || to.grid.is_empty() {
        return;
    }
    if !taps.is_empty() {
        check("input", from.array.len(), taps.end - 1, from.grid);
    }
    check(
        "output",
        to.array.len(),
        last_row(taps.rows(), to.plane),
        to.grid,
    );
    // SAFETY: checked above.
    unsafe { T::sparse_product(isa, taps, weights, begin, from, to) }
}

/// `gradients[tap] += sum over positions and lanes of by_output[row][position] * input[place of tap + position]`: gradients
/// of the weights of `rows`, in the order of their taps.
///
/// `input.plane` is not used, since places are in the whole array.
///
/// # Panics
/// When a vector lies outside its array, or grids and lengths disagree.
#[track_caller]
pub fn sampled_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    rows: std::ops::Range<usize>,
    by_output: Plane<&[T]>,
    input: Plane<&[T]>,
    gradients: &mut [T],
) {
    let here = taps.starts[rows.start]..taps.starts[rows.end];
    assert_eq!(gradients.len(), here.len(), "gradients");
    assert_eq!(by_output.grid.size, input.grid.size, "positions");
    if here.is_empty() || input.grid.is_empty() {
        return;
    }
    check("input", input.array.len(), taps.end - 1, input.grid);
    let last = last_row(rows.end, by_output.plane);
    check("gradient", by_output.array.len(), last, by_output.grid);
    // SAFETY: checked above.
    unsafe { T::sampled_product(isa, taps, rows, by_output, input, gradients) }
}

/// Copies samples into vectors: `to[channel][position][lane] = from[lane][position][channel]`, zero in lanes without a sample.
///
/// # Panics
/// When a number lies outside its array.
#[track_caller]
pub fn to_lanes<T: Real>(isa: Isa, from: &[T], samples: LaneLayout, to: Plane<&mut [T]>) {
    if samples.channels == 0 || to.grid.is_empty() {
        return;
    }
    samples.check(from.len(), to.grid.size);
    check(
        "vectors",
        to.array.len(),
        last_row(samples.channels, to.plane),
        to.grid,
    );
    // SAFETY: checked above.
    unsafe { T::to_lanes(isa, from, samples, to) }
}

/// Copies vectors back into samples, or adds them: the inverse of [`to_lanes`].
///
/// # Panics
/// When a number lies outside its array.
#[track_caller]
pub fn from_lanes<T: Real>(
    isa: Isa,
    from: Plane<&[T]>,
    samples: LaneLayout,
    to: &mut [T],
    add: bool,
) {
    if samples.channels == 0 || from.grid.is_empty() {
        return;
    }
    samples.check(to.len(), from.grid.size);
    check(
        "vectors",
        from.array.len(),
        last_row(samples.channels, from.plane),
        from.grid,
    );
    // SAFETY: checked above.
    unsafe { T::from_lanes(isa, from, samples, to, add) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LANES;

    /// Numbers that sums of a few products of keep exactly.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 2_654_435_761 + seed * 97) >> 7 & 15) as f32 - 7.0)
            .collect()
    }

    fn as_f64(x: &[f32]) -> Vec<f64> {
        x.iter().map(|x| f64::from(*x)).collect()
    }

    /// Maps of several widths, so that blocks of every size are met; rows with no tap, one, and many.
    #[test]
    fn all_instruction_sets_give_the_sums_of_the_definition() {
        for (height, width, step) in [(1, 1, 1), (2, 3, 2), (1, 31, 1), (3, 16, 1), (2, 10, 2)] {
            let (channels, pitch) = (3, width * step + 4);
            let plane = (height * step + 2) * pitch;
            let counts = [0, 1, 2, 5, 13, 27];
            let mut starts = vec![0];
            let mut places = vec![];
            for (row, count) in counts.iter().enumerate() {
                for i in 0..*count {
                    let k = (i * 7 + row) % 27;
                    let (c, ky, kx) = (k / 9, k / 3 % 3, k % 3);
                    places.push((c * plane + ky * pitch + kx) as u32);
                }
                starts.push(places.len());
            }
            let taps = Taps::new(starts.clone(), places.clone());
            let weights = numbers(taps.len(), 1);
            let bias = numbers(counts.len(), 2);
            let input = numbers(channels * plane * LANES, 3);
            let from = Grid {
                size: [height, width],
                steps: [step * pitch, step],
            };
            let to = Grid {
                size: [height, width],
                steps: [width, 1],
            };
            let area = height * width;
            let by_output = numbers(counts.len() * area * LANES, 4);
            for isa in Isa::available() {
                let mut out = vec![-1.0; counts.len() * area * LANES];
                let plane_of = |array| Plane {
                    array,
                    grid: from,
                    plane: 0,
                };
                let mut product = |begin| {
                    let written = Plane {
                        array: &mut out[..],
                        grid: to,
                        plane: area,
                    };
                    sparse_product(isa, &taps, &weights, begin, plane_of(&input[..]), written);
                    out.clone()
                };
                let out = product(Begin::Bias(&bias));
                let twice = product(Begin::Sum);
                let mut gradients = vec![1.0; taps.len()];
                let read = Plane {
                    array: &by_output[..],
                    grid: to,
                    plane: area,
                };
                let rows = 0..counts.len();
                sampled_product(isa, &taps, rows, read, plane_of(&input[..]), &mut gradients);
                let mut by_weights = vec![1.0; taps.len()];
                for row in 0..counts.len() {
                    for (position, lane) in (0..area).flat_map(|p| (0..LANES).map(move |l| (p, l)))
                    {
                        let at = position / width * step * pitch + position % width * step;
                        let mut sum = bias[row];
                        let o = (row * area + position) * LANES + lane;
                        for tap in starts[row]..starts[row + 1] {
                            let x = input[(places[tap] as usize + at) * LANES + lane];
                            sum += weights[tap] * x;
                            by_weights[tap] += by_output[o] * x;
                        }
                        let at = format!("{isa}, row {row}, position {position}");
                        assert_eq!(out[o], sum, "{at}");
                        assert_eq!(twice[o], sum + (sum - bias[row]), "{at}");
                    }
                }
                assert_eq!(gradients, by_weights, "{isa}, {height} by {width}");
                // Some rows alone give the same.
                let some = starts[3]..starts[5];
                let mut gradients = vec![1.0; some.len()];
                let read = Plane {
                    array: &by_output[..],
                    grid: to,
                    plane: area,
                };
                sampled_product(isa, &taps, 3..5, read, plane_of(&input[..]), &mut gradients);
                assert_eq!(gradients, by_weights[some], "{isa}");
            }
            let mut out = vec![0.0_f64; counts.len() * area * LANES];
            let wide = as_f64(&input);
            let read = Plane {
                array: &wide[..],
                grid: from,
                plane: 0,
            };
            let written = Plane {
                array: &mut out[..],
                grid: to,
                plane: area,
            };
            sparse_product(
                Isa::SCALAR,
                &taps,
                &as_f64(&weights),
                Begin::Zero,
                read,
                written,
            );
            let mut single = vec![0.0_f32; out.len()];
            let read = Plane {
                array: &input[..],
                grid: from,
                plane: 0,
            };
            let written = Plane {
                array: &mut single[..],
                grid: to,
                plane: area,
            };
            sparse_product(Isa::best(), &taps, &weights, Begin::Zero, read, written);
            assert_eq!(as_f64(&single), out);
        }
    }

    #[test]
    fn lanes_are_samples_and_come_back() {
        for (lanes, channels, height, width) in [(16, 16, 2, 3), (9, 5, 1, 4), (1, 40, 3, 1)] {
            let per_sample = height * width * channels;
            let from = numbers(lanes * per_sample, 5);
            let samples = LaneLayout {
                lanes,
                lane_step: per_sample,
                steps: [width * channels, channels],
                channels,
            };
            // A border of one vector on each side.
            let (pitch, plane) = (width + 2, (height + 2) * (width + 2));
            let grid = Grid {
                size: [height, width],
                steps: [pitch, 1],
            };
            for isa in Isa::available() {
                let mut vectors = vec![0.5; channels * plane * LANES];
                let first = (pitch + 1) * LANES;
                let array = &mut vectors[first..];
                to_lanes(isa, &from, samples, Plane { array, grid, plane });
                for c in 0..channels {
                    for (y, x) in (0..height + 2).flat_map(|y| (0..pitch).map(move |x| (y, x))) {
                        for lane in 0..LANES {
                            let got = vectors[(c * plane + y * pitch + x) * LANES + lane];
                            let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
                            let want = match inside {
                                false => 0.5,
                                true if lane >= lanes => 0.0,
                                true => {
                                    from[lane * per_sample
                                        + ((y - 1) * width + x - 1) * channels
                                        + c]
                                }
                            };
                            assert_eq!(got, want, "{isa}, channel {c} at {y}, {x}, lane {lane}");
                        }
                    }
                }
                let mut back = vec![1.0; from.len()];
                let array = &vectors[first..];
                from_lanes(isa, Plane { array, grid, plane }, samples, &mut back, true);
                let more: Vec<f32> = from.iter().map(|x| x + 1.0).collect();
                assert_eq!(back, more, "{isa}");
                from_lanes(isa, Plane { array, grid, plane }, samples, &mut back, false);
                assert_eq!(back, from, "{isa}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "input: 32 numbers")]
    fn a_place_outside_the_input_is_refused() {
        let taps = Taps::new(vec![0, 1], vec![1]);
        let grid = Grid {
            size: [1, 2],
            steps: [0, 1],
        };
        let (input, mut out) = ([0.0_f32; 2 * LANES], [0.0; 2 * LANES]);
        let from = Plane {
            array: &input[..],
            grid,
            plane: 0,
        };
        let to = Plane {
            array: &mut out[..],
            grid,
            plane: 0,
        };
        sparse_product(Isa::best(), &taps, &[1.0], Begin::Zero, from, to);
    }

    #[test]
    #[should_panic(expected = "gradient: 16 numbers")]
    fn a_row_outside_the_gradient_is_refused() {
        let taps = Taps::new(vec![0, 1, 1], vec![0]);
        let grid = Grid {
            size: [1, 1],
            steps: [usize::MAX, usize::MAX],
        };
        let input = [0.0_f32; LANES];
        let plane = |plane| Plane {
            array: &input[..],
            grid,
            plane,
        };
        sampled_product(Isa::best(), &taps, 0..2, plane(1), plane(0), &mut [0.0]);
    }
}
