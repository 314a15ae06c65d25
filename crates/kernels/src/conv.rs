//! Direct sparse convolution, without im2col.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::{Activation, Isa, Layout};

/// A sparse filter bank packed for one input size and one [`Layout`].
#[derive(Debug, Clone)]
pub struct SparseConv {
    csr: Csr,
    shape: [usize; 4],
    bias: Vec<f32>,
    window: Window,
    groups: usize,
    input: [usize; 3],
    output: [usize; 2],
    layout: Layout,
    channels: Range<usize>,
}

impl SparseConv {
    /// Packs filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows) for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When the shapes, the groups, the window and the bias do not fit together.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack(
        isa: Isa,
        layout: Layout,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
    ) -> Self {
        Self::pack_channels(
            isa,
            layout,
            weight,
            shape,
            bias,
            window,
            groups,
            input,
            0..shape[0],
        )
    }

    /// Packs only some output channels, so that threads may share one convolution: each writes its own channels of an output.
    /// `bias` is that of all channels.
    ///
    /// # Panics
    /// As [`SparseConv::pack`], or when the channels do not exist.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        _isa: Isa,
        layout: Layout,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
        channels: Range<usize>,
    ) -> Self {
        let output = check_conv(shape, window, groups, input);
        assert_eq!(weight.rows(), shape[0], "rows of the weight");
        assert_eq!(
            weight.cols(),
            shape[1] * shape[2] * shape[3],
            "columns of the weight"
        );
        assert!(
            channels.end <= shape[0],
            "channels {channels:?} of {}",
            shape[0]
        );
        let bias = bias.map_or_else(|| vec![0.0; weight.rows()], <[f32]>::to_vec);
        assert_eq!(bias.len(), weight.rows(), "elements of the bias");
        Self {
            csr: weight.clone(),
            shape,
            bias,
            window: window.clone(),
            groups,
            input,
            output,
            layout,
            channels,
        }
    }

    /// Elements of scratch that a run needs, whatever the count; often zero.
    pub fn scratch_len(&self) -> usize {
        0
    }

    /// `y = act(W * x + b)` over `count` samples or tiles (see [`Layout`]); `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`SparseConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(
        &self,
        x: &[f32],
        y: &mut [f32],
        count: usize,
        scratch: &mut [f32],
        act: Activation,
    ) {
        let lanes = self.layout.samples();
        let [c, h, w] = self.input;
        let [out, oh, ow] = self.output();
        assert_eq!(x.len(), count * c * h * w * lanes, "elements of x");
        assert_eq!(y.len(), count * out * oh * ow * lanes, "elements of y");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        let [all, per_group, kh, kw] = self.shape;
        let out_per_group = all / self.groups;
        let [top, left, ..] = self.window.pads;
        let ([sy, sx], [dy, dx]) = (self.window.strides, self.window.dilations);
        for n in 0..count {
            for (o, channel) in self.channels.clone().enumerate() {
                let (columns, values) = self.csr.row(channel);
                for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                    for lane in 0..lanes {
                        let mut acc = self.bias[channel];
                        for (&k, v) in columns.iter().zip(values) {
                            let k = k as usize;
                            let ic = channel / out_per_group * per_group + k / (kh * kw);
                            let iy = (oy * sy + k / kw % kh * dy).wrapping_sub(top);
                            let ix = (ox * sx + k % kw * dx).wrapping_sub(left);
                            if iy < h && ix < w {
                                acc += v * x[((n * c + ic) * h * w + iy * w + ix) * lanes + lane];
                            }
                        }
                        y[(((n * out + o) * oh + oy) * ow + ox) * lanes + lane] = act.apply(acc);
                    }
                }
            }
        }
    }

    /// Packed output channels, height and width.
    pub fn output(&self) -> [usize; 3] {
        [self.channels.len(), self.output[0], self.output[1]]
    }

    /// The layout it was packed for.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "scalar-direct-f32-1x1"
    }

    /// Bytes of packed weights, offsets and biases.
    pub fn bytes(&self) -> usize {
        self.csr.nonzeros() * 8 + self.channels.len() * 8
    }
}

/// Output height and width of a convolution whose parts fit together.
#[track_caller]
pub(crate) fn check_conv(
    shape: [usize; 4],
    window: &Window,
    groups: usize,
    input: [usize; 3],
) -> [usize; 2] {
    let [out, per_group, kh, kw] = shape;
    assert_eq!(window.kernel_shape, [kh, kw], "kernel_shape of the window");
    assert!(
        groups > 0 && out.is_multiple_of(groups),
        "{out} output channels in {groups} groups"
    );
    assert_eq!(per_group * groups, input[0], "input channels");
    window
        .output(input[1], input[2])
        .unwrap_or_else(|| panic!("{window:?} does not fit {input:?}"))
}
