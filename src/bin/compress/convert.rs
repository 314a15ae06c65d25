//! `compress convert IN OUT`.

use sparsevd_compressor::smaller;
use sparsevd_format::{WriteOptions, write_network};
use sparsevd_model::Weights;

use crate::args::ConvertArgs;
use crate::{Outcome, inputs, output, print};

pub fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    output::check_network(&args.output, args.force)?;
    let loaded = inputs::network(&args.input, args.network.as_deref())?;
    let mut network = loaded.network;
    if args.dense {
        network = network.to_dense();
    } else {
        let weights: Vec<String> = network
            .graph
            .weighted_nodes()
            .filter_map(|n| n.op.weight())
            .map(str::to_owned)
            .collect();
        for name in weights {
            if let Some(tensor) = network.tensors.get_mut(&name)
                && let Weights::Dense(dense) = tensor
            {
                *tensor = smaller(std::mem::take(dense));
            }
        }
    }
    let options = WriteOptions {
        values: args.encoding.values.into(),
        profile: args.encoding.profile.into(),
        metadata: loaded.metadata,
    };
    let bytes = write_network(&args.output, &network, &options)?;
    print::text(format_args!(
        "wrote {} ({} bytes)",
        args.output.display(),
        print::count(bytes as usize)
    ))?;
    Ok(Outcome::Done)
}
