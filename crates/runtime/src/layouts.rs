//! Changes of layout: steps of no node, where a kernel wants a value in another layout than it has.

use sparsevd_kernels::reblock::{PackBlocks, Reblock, Unpack};
use sparsevd_kernels::{Clamp, Layout, Pack, PackedKernel, UnpackTiles, select};
use sparsevd_model::Shape;

use crate::lower::{Builder, Lowered, Part, Partition, Tensor, split};
use crate::program::Value;

impl Builder<'_> {
    /// The value in that layout, converted once however many steps read it.
    pub fn converted(&mut self, value: Value, layout: Layout) -> Value {
        let tensor = self.values[value];
        if tensor.layout == layout {
            return value;
        }
        if let Some(&done) = self.converted.get(&(value, layout)) {
            return done;
        }
        let features = tensor.features;
        let isa = self.options.isa;
        let to = Tensor { features, layout };
        let output = match (tensor.layout, layout) {
            (Layout::Blocks(from), Layout::Blocks(to_blocks)) if from.regroups(&to_blocks) => self
                .change("Reblock", value, to, &|channels| {
                    let [from, to] = [from, to_blocks].map(|b| b.with_channels(channels));
                    Box::new(Reblock::new(isa, from, to))
                }),
            (Layout::Single, Layout::Blocks(blocks)) => {
                self.change("Pack", value, to, &|channels| {
                    let blocks = blocks.with_channels(channels);
                    Box::new(PackBlocks { isa, blocks })
                })
            }
            (Layout::Blocks(blocks), Layout::Single) => {
                self.change("Unpack", value, to, &|channels| {
                    Box::new(Unpack::new(isa, blocks.with_channels(channels)))
                })
            }
            (Layout::Single, Layout::Tiled) => {
                self.change("Pack", value, to, &|_| Box::new(Pack::all(isa, features)))
            }
            (Layout::Tiled, Layout::Single) => self.change("Unpack", value, to, &|_| {
                Box::new(UnpackTiles { isa, features })
            }),
            _ => {
                let single = self.converted(value, Layout::Single);
                return self.converted(single, layout);
            }
        };
        self.converted.insert((value, layout), output);
        output
    }

    /// A new value that a step of no node makes of another, in parts for threads where it is a map. `make` gives the kernel for so many of its
    /// channels.
    pub fn change(
        &mut self,
        op: &str,
        value: Value,
        tensor: Tensor,
        make: &dyn Fn(usize) -> Box<dyn PackedKernel>,
    ) -> Value {
        let features = tensor.features;
        let channels = match (self.values[value].layout, tensor.layout) {
            (_, Layout::Blocks(blocks)) | (Layout::Blocks(blocks), _) => blocks.map()[0],
            _ => 1,
        };
        let most = if self.block == 1 { self.parts } else { 1 };
        // To move a number takes about as long as sixteen multiply-adds.
        let parts = select::parts(16 * features, most.min(channels));
        let parts = split(&vec![1; channels], parts)
            .into_iter()
            .map(|some| Part {
                features: match tensor.layout {
                    Layout::Blocks(blocks) => blocks.with_channels(some.len()).len(),
                    _ => features / channels.max(1) * some.len(),
                },
                kernel: make(some.len()),
            });
        let output = self.values.len();
        self.steps.push(Lowered {
            name: String::new(),
            op: op.into(),
            parts: parts.collect(),
            partition: Partition::Channels,
            clamp: Clamp::None,
            inputs: vec![value],
            output,
            output_shape: Shape::from([features]),
            weight: None,
        });
        self.values.push(tensor);
        output
    }
}
