//! The blocks of a body, one after the other.

use burn::module::Module;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

use crate::layers::dropout_seed::{draw_seed, seeded};
use crate::layers::kv_cache::KvCache;
use crate::layers::parts::Parts;
use crate::layers::pass::Pass;
use crate::layers::virtual_tokens::{Given, cache_of, given};
use crate::mix_seed;

/// Runs `x`, `[batch, seq, hidden]`, through all `blocks`, or those from [`Pass::passed`] to [`Pass::layers`], and after the
/// last of all through `norm`.
///
/// `forward` gets the number of a block, the block, its input, and the cache.
///
/// On a device with gradient checkpointing a block keeps nothing but its input, and its backward
/// pass runs it again. Where adapters drop out each block's dropout begins at a seed of its own, so that it is
/// the same both times, and the same with and without checkpointing.
///
/// # Panics
///
/// If the pass has more blocks than there are, or less with a cache, or `passed` is larger than `layers`.
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
        passed,
        prefix,
        ..
    } = pass;
    let count = layers.unwrap_or(blocks.len());
    assert!(
        count <= blocks.len(),
        "a pass of {count} layers through a model of {}",
        blocks.len()
    );
    assert!(
        passed <= count,
        "a pass of {count} layers, but the embeddings have been through {passed}"
    );
    assert!(
        cache.is_none() || (count == blocks.len() && passed == 0),
        "a cache needs all layers, not {passed}..{count} of {}",
        blocks.len()
    );
    let device = x.device();
    let seq = x.dims()[1];
    let again = device.gradient_checkpointing_strategy()
        == Some(GradientCheckpointingStrategy::Balanced)
        && cache.is_none();
    let seed = (device.is_autodiff() && drop_out(blocks)).then(|| draw_seed(&device));
    let mut x = x;
    for (i, block) in blocks[..count].iter().enumerate().skip(passed) {
        if let Some(states) = &mut states {
            states.push(x.clone());
        }
        // Without a cache of all tokens a block has one of its own, which holds the virtual tokens.
        let before = given(prefix.as_ref(), i);
        let seed = seed.map(|seed| mix_seed(seed, i as u64));
        x = if again {
            let (forward, device) = (forward.clone(), device.clone());
            let module = (block.clone(), before);
            ft_kernels::recompute(&module, x, move |(block, before): &(B, Given), x| {
                let mut own = cache_of(before, i);
                seeded(&device, seed, || forward(i, block, x, own.as_mut()))
            })
        } else {
            let mut own = cache_of(&before, i);
            let cache = own.as_mut().or(cache.as_deref_mut());
            seeded(&device, seed, || forward(i, block, x, cache))
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

/// Whether dropout acts on any of these parts while training.
pub(crate) fn drop_out<B: Parts>(blocks: &[B]) -> bool {
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
