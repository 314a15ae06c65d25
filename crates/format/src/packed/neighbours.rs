//! What lies around a cell of a grid (a kernel, or a map), among the cells that come before it.

/// The non-zeros of one grid, as its cells see them.
pub(super) struct Neighbours {
    height: usize,
    width: usize,
    /// Levels, with a border of one zero above, left and right.
    levels: Vec<i32>,
    /// 1 for a non-zero to the left, 2 above, 4 above left, 8 above right.
    pattern: Vec<u8>,
    /// Non-zeros up to five cells away, left or above, more than two away in one of the directions; counted to 8.
    /// `None` where grids are too small for it.
    far: Option<Vec<u8>>,
    empty: bool,
}

/// Signs and magnitudes of the four neighbours in `pattern`: left, above, above left, above right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Around {
    /// Sum of their signs: -4 to 4.
    pub signs: i32,
    /// Twice the mean magnitude of those that are not zero, rounded down; 0 where all four are zero.
    pub size: i32,
}

impl Neighbours {
    pub fn new([height, width]: [usize; 2], wide: bool) -> Self {
        Self {
            height,
            width,
            levels: vec![0; (height + 1) * (width + 2)],
            pattern: vec![0; height * width],
            far: wide.then(|| vec![0; height * width]),
            empty: true,
        }
    }

    /// Sets all cells to zero.
    pub fn clear(&mut self) {
        if !self.empty {
            self.levels.fill(0);
            self.pattern.fill(0);
            if let Some(far) = &mut self.far {
                far.fill(0);
            }
            self.empty = true;
        }
    }

    pub fn pattern(&self, cell: usize) -> usize {
        usize::from(self.pattern[cell])
    }

    /// 0 where the grid is too small for such a count, otherwise one more than the count.
    pub fn far(&self, cell: usize) -> usize {
        self.far
            .as_ref()
            .map_or(0, |far| 1 + usize::from(far[cell]))
    }

    pub fn around(&self, cell: usize) -> Around {
        let stride = self.width + 2;
        let at = (cell / self.width + 1) * stride + cell % self.width + 1;
        let four = [at - 1, at - stride, at - stride - 1, at - stride + 1].map(|i| self.levels[i]);
        let n = four.iter().filter(|l| **l != 0).count() as i32;
        let sum: i32 = four.iter().map(|l| l.abs()).sum();
        Around {
            signs: four.iter().map(|l| l.signum()).sum(),
            size: 2 * sum / n.max(1),
        }
    }

    /// Puts a level into a cell.
    pub fn put(&mut self, cell: usize, level: i32) {
        let (y, x) = (cell / self.width, cell % self.width);
        self.empty = false;
        self.levels[(y + 1) * (self.width + 2) + x + 1] = level;
        let right = x + 1 < self.width;
        if right {
            self.pattern[cell + 1] |= 1;
        }
        if y + 1 < self.height {
            let below = cell + self.width;
            self.pattern[below] |= 2;
            if right {
                self.pattern[below + 1] |= 4;
            }
            if x > 0 {
                self.pattern[below - 1] |= 8;
            }
        }
        let Some(far) = &mut self.far else { return };
        for yy in y..=(y + 5).min(self.height - 1) {
            for xx in x.saturating_sub(5)..=(x + 5).min(self.width - 1) {
                let later = yy > y || xx > x;
                if later && (yy - y > 2 || xx.abs_diff(x) > 2) {
                    let count = &mut far[yy * self.width + xx];
                    *count = (*count + 1).min(8);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_testing::arbitrary::Stream;

    #[test]
    fn as_counted_cell_by_cell() {
        for grid in [[1, 1], [1, 9], [7, 1], [5, 5], [12, 9]] {
            let [height, width] = grid;
            let mut neighbours = Neighbours::new(grid, true);
            let mut stream = Stream(7);
            for round in 0..20 {
                neighbours.clear();
                let mut levels = vec![0_i32; height * width];
                for cell in 0..height * width {
                    let (y, x) = ((cell / width) as isize, (cell % width) as isize);
                    let at = |dy: isize, dx: isize| {
                        let inside = y + dy >= 0 && x + dx >= 0 && x + dx < width as isize;
                        if inside {
                            levels[((y + dy) * width as isize + x + dx) as usize]
                        } else {
                            0
                        }
                    };
                    let four = [at(0, -1), at(-1, 0), at(-1, -1), at(-1, 1)];
                    let pattern: usize = four
                        .iter()
                        .enumerate()
                        .map(|(i, l)| usize::from(*l != 0) << i)
                        .sum();
                    assert_eq!(
                        neighbours.pattern(cell),
                        pattern,
                        "{grid:?}, round {round}, cell {cell}"
                    );
                    let far = (-5..=0).flat_map(|dy| (-5..=5).map(move |dx| (dy, dx)));
                    let far = far.filter(|(dy, dx): &(isize, isize)| *dy < -2 || dx.abs() > 2);
                    let far = far
                        .filter(|(dy, dx)| (*dy < 0 || *dx < 0) && at(*dy, *dx) != 0)
                        .count();
                    assert_eq!(
                        neighbours.far(cell),
                        1 + far.min(8),
                        "{grid:?}, round {round}, cell {cell}"
                    );
                    let signs: i32 = four.iter().map(|l: &i32| l.signum()).sum();
                    assert_eq!(neighbours.around(cell).signs, signs);
                    let level = (stream.bits() % 15) as i32 - 7;
                    if level.abs() < 3 {
                        levels[cell] = level;
                        if level != 0 {
                            neighbours.put(cell, level);
                        }
                    }
                }
            }
        }
    }
}
