//! The blocks of a body, one after the other.

use burn::module::Module;
use burn::tensor::{Device, Distribution, GradientCheckpointingStrategy, Tensor};

use crate::layers::kv_cache::KvCache;
use crate::layers::parts::Parts;
use crate::layers::pass::Pass;
use crate::layers::virtual_tokens::{Given, cache_of, given};
use crate::mix_seed;

/// Runs `x`, `[batch, seq, hidden]`, through all `blocks`, or as many as the pass wants, and after the last of all
/// through `norm`.
///
/// `forward` gets the number of a block, the block, its input, and the cache.
///
/// On a device with gradient checkpointing a block keeps nothing but its input, and its backward
/// pass runs it again. Where adapters drop out each block's dropout begins at a seed of its own, so that it is
/// the same both times, and the same with and without checkpointing.
///
/// # Panics
///
/// If the pass wants more blocks than there are, or less with a cache.
pub fn run_blocks<B, F>(
    blocks: &[B],
    x: Tensor<3>,
    pass: Pass<'_>,
    forward: F,
    norm: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3>
where
    B: Module + Parts + 'static,
    F: Fn(usize, &B, Tensor<3>, Option<&mut KvCache>) -> Tensor<3> + Clone + Send + 'static,
{
    let Pass {
        mut cache,
        mut states,
        layers,
        prefix,
        ..
    } = pass;
    let count = layers.unwrap_or(blocks.len());
    assert!(
        count <= blocks.len(),
        "{count} layers are wanted, the model has {}",
        blocks.len()
    );
    assert!(
        cache.is_none() || count == blocks.len(),
        "a cache needs all layers, not {count} of {}",
        blocks.len()
    );
    let device = x.device();
    let seq = x.dims()[1];
    let again = device.gradient_checkpointing_strategy()
        == Some(GradientCheckpointingStrategy::Balanced)
        && cache.is_none();
    let seed = (device.is_autodiff() && drop_out(blocks)).then(|| draw_seed(&device));
    let mut x = x;
    for (i, block) in blocks[..count].iter().enumerate() {
        if let Some(states) = &mut states {
            states.push(x.clone());
        }
        let begin = {
            let device = device.clone();
            move || {
                if let Some(seed) = seed {
                    device.seed(mix_seed(seed, i as u64));
                }
            }
        };
        // Without a cache of all tokens a block has one of its own, which holds the virtual tokens.
        let before = given(prefix.as_ref(), i);
        x = if again {
            let forward = forward.clone();
            ft_kernels::recompute(
                &(block.clone(), before),
                x,
                move |(block, before): &(B, Given), x| {
                    begin();
                    forward(i, block, x, cache_of(before, i).as_mut())
                },
            )
        } else {
            begin();
            let mut own = cache_of(&before, i);
            forward(i, block, x, own.as_mut().or(cache.as_deref_mut()))
        };
    }
    if let Some(cache) = cache {
        cache.advance(seq);
    }
    if count == blocks.len() {
        x = norm(x);
    }
    if let Some(states) = states {
        states.push(x.clone());
    }
    x
}

/// Whether dropout acts on any part of these blocks while training.
fn drop_out<B: Parts>(blocks: &[B]) -> bool {
    let mut acts = false;
    for block in blocks {
        block.for_each_part(&mut |_, part| {
            acts |= part
                .adapters()
                .active()
                .any(|adapter| adapter.dropout.prob > 0.0);
        });
    }
    acts
}

fn draw_seed(device: &Device) -> u64 {
    // Sixteen bits each: a loop that does not seed must not come round again.
    let numbers = Tensor::<1>::random([4], Distribution::Uniform(0.0, 65536.0), device);
    let numbers = numbers.into_data().convert::<f32>();
    (numbers.iter::<f32>()).fold(0, |seed, number| (seed << 16) | (number as u64 & 0xffff))
}
