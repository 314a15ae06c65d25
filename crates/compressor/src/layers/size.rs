//! Size of a value in training, and where its elements lie.

use std::sync::Arc;

use sparsevd_model::Window;

/// Size of one value per sample: channels last, `height = width = 1` for a vector.
///
/// A value of other dimensions than those of a map lies in C order; its last dimension is then the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapSize {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl MapSize {
    /// The size of a value of these dimensions per sample, in the order of the network.
    pub fn of(dims: &[usize]) -> Self {
        match *dims {
            [channels, height, width] => Self {
                height,
                width,
                channels,
            },
            _ => {
                let channels = dims.last().copied().unwrap_or(1);
                let elements: usize = dims.iter().product();
                Self {
                    height: 1,
                    width: elements / channels.max(1),
                    channels,
                }
            }
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
    /// The dimensions of a map of this size, in the order of the network.
    pub fn map_dims(self) -> Vec<usize> {
        vec![self.channels, self.height, self.width]
    }
    pub fn dims(self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}

/// The places in training of the elements of a value of these dimensions, which are counted in C order: channels last for a map.
pub(crate) fn places(dims: &[usize]) -> impl Fn(usize) -> usize + use<> {
    let (area, channels) = match *dims {
        [channels, height, width] => (height * width, channels),
        _ => (1, 1),
    };
    move |i| match area {
        1 => i,
        _ => i % area * channels + i / area,
    }
}

/// The places of all elements; `None` where they have more than 32 bits.
pub(crate) fn all_places(dims: &[usize]) -> Option<Arc<[u32]>> {
    let place = places(dims);
    let elements = 0..dims.iter().product();
    elements.map(|i| u32::try_from(place(i)).ok()).collect()
}
