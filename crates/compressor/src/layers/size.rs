//! Size of a value in training.

use sparsevd_model::Window;

/// Size of one value per sample: channels last, `height = width = 1` for a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapSize {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl MapSize {
    pub fn vector(channels: usize) -> Self {
        Self {
            height: 1,
            width: 1,
            channels,
        }
    }
    /// The map after a window; `None` where the window is larger than the map.
    pub fn over(self, window: &Window) -> Option<Self> {
        let [height, width] = window.output(self.height, self.width)?;
        Some(Self {
            height,
            width,
            ..self
        })
    }
    pub fn area(self) -> usize {
        self.height * self.width
    }
    pub fn elements(self) -> usize {
        self.area() * self.channels
    }
    pub fn dims(self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}
