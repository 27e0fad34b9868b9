//! The blocks of a decoder, one after the other.

use burn::module::Module;
use burn::tensor::{Device, Distribution, GradientCheckpointingStrategy, Tensor};

use crate::{KvCache, Linear};

/// Runs `x`, `[batch, seq, hidden]`, through all `blocks`.
///
/// On a device with gradient checkpointing a block keeps nothing but its input, and its backward
/// pass runs it again. With `drops_out` each block's dropout begins at a seed of its own, so that it is
/// the same both times, and the same with and without checkpointing.
pub(crate) fn run<B, F>(
    blocks: &[B],
    x: Tensor<3>,
    mut cache: Option<&mut KvCache>,
    drops_out: bool,
    forward: F,
) -> Tensor<3>
where
    B: Module + 'static,
    F: Fn(usize, &B, Tensor<3>, Option<&mut KvCache>) -> Tensor<3> + Clone + Send + 'static,
{
    let device = x.device();
    let again = device.gradient_checkpointing_strategy()
        == Some(GradientCheckpointingStrategy::Balanced)
        && cache.is_none();
    let seed = (drops_out && device.is_autodiff()).then(|| draw_seed(&device));
    let mut x = x;
    for (i, block) in blocks.iter().enumerate() {
        let begin = {
            let device = device.clone();
            move || {
                if let Some(seed) = seed {
                    device.seed(seed.wrapping_add(i as u64));
                }
            }
        };
        x = if again {
            let forward = forward.clone();
            ft_kernels::recompute(block, x, move |block: &B, x| {
                begin();
                forward(i, block, x, None)
            })
        } else {
            begin();
            forward(i, block, x, cache.as_deref_mut())
        };
    }
    x
}

/// Whether dropout acts on any of these layers while training.
pub(crate) fn drop_out<'a>(linears: impl IntoIterator<Item = &'a Linear>) -> bool {
    let mut adapters = linears.into_iter().flat_map(|linear| &linear.adapters);
    adapters.any(|adapter| adapter.active && adapter.dropout.prob > 0.0)
}

fn draw_seed(device: &Device) -> u64 {
    // Sixteen bits each: a loop that does not seed must not come round again.
    let numbers = Tensor::<1>::random([4], Distribution::Uniform(0.0, 65536.0), device);
    let numbers = numbers.into_data().convert::<f32>();
    (numbers.iter::<f32>()).fold(0, |seed, number| (seed << 16) | (number as u64 & 0xffff))
}
