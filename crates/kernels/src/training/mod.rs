//! The loops of training, each compiled for every instruction set: noise, the local reparametrization, the fused
//! KL + Adam update, pooling, activations, normalisation and the convolutions' gradients.
//!
//! Bodies are generic over [`Real`], so that the same code trains in f32 and has its gradients checked in f64.

mod activation;
mod channels;
mod convolution;
mod depthwise;
mod direct;
mod elementwise;
mod momentum;
mod philox;
mod real;
mod reparametrization;
mod sparse;
mod update;
mod windows;

pub use activation::{activate, activation_gradient};
pub use channels::{channel_gradient, channel_sums, relu_gradient_sums, scale_channels};
pub use convolution::{Event, col2im_add, im2row, input_gradient, weight_gradient};
pub use depthwise::{depthwise, depthwise_gradient};
pub use direct::{
    Begin, PixelGrid, Run, direct_product, direct_weight_gradient, merge_runs, padded_units,
};
pub use elementwise::{
    add, add_square_gradient, multiply, relu, relu_gradient, round_to_bytes,
    round_to_bytes_gradient, sum,
};
pub use momentum::{Nesterov, nesterov};
pub use philox::{NoiseKey, normals, philox4x32};
pub use real::Real;
pub use reparametrization::{VARIANCE_EPSILON, reparametrize, square};
pub use sparse::{
    Grid, LaneLayout, Plane, Taps, add_lane_totals, from_lanes, lane_gradient, lane_sums,
    relu_lane_gradient_sums, sampled_product, scale_lanes, sparse_product, to_lanes,
};
pub use update::{
    Adam, K1, K2, K3, KlWeight, LOG_ALPHA_LIMIT, THETA_EPSILON, adam, exp, kl, kl_gradient,
    log_alpha, variational_adam,
};
pub use windows::{PoolMaps, max_pool};
