//! How much memory a step of training takes, before it is taken.
//!
//! What the forward pass keeps for the backward pass follows from the layers of the model. These are, of each block of a decoder and for
//! every token, as numbers of `f32`:
//!
//! - the input of every norm. The sum after a sublayer is the input of the next norm, so the outputs of the projections that end a
//!   sublayer are not kept besides;
//! - the output of a layer norm. That of a root mean square norm is computed again;
//! - the outputs of all other projections: queries, keys, values, the parts of a feed-forward layer;
//! - the output of attention, and one number for each head;
//! - the output of the activation of a feed-forward layer. That of a gated layer is computed again;
//! - `r` numbers for each layer with an adapter of rank `r`; for an adapter of another kind, the output of the layer once more.
//!
//! For SmolLM2-135M with LoRA of rank 16 these are 5,881 numbers, 0.71 MB a token over 30 blocks. With gradient checkpointing it is the
//! input of each block, and all of one block.
//!
//! Memory is highest at one of four moments ([`Moment`]). The estimate is for the CPU, whose kernels decide what is kept.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapter, PackedParam, Projection};
use ft_core::module_path::{self, PathVisitor};
use ft_core::{CausalLm, Linear, Part};

use crate::param_kind::{Parameter, parameters};
use crate::{Optim, ParamKind, trainable};

/// Bytes of a number.
const F32: u64 = 4;

/// The largest number of logits at a time, as in `ft_kernels`.
const CHUNK_LOGITS: u64 = 1 << 23;

/// What a process has besides its tensors and its data: stacks and buffers of threads, memory that the allocator keeps.
const PROCESS: u64 = 12 << 20;

/// The step whose memory is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of its longest row.
    pub seq_len: usize,
    /// Batches whose gradients make up one step.
    pub gradient_accumulation_steps: usize,
    /// The optimizer.
    pub optim: Optim,
    /// Whether blocks are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Whether checkpoints are written.
    pub saves: bool,
}

/// When memory is highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Between the forward and the backward pass: all activations are there.
    Loss,
    /// The end of the backward pass: all gradients are there.
    Gradients,
    /// The update: gradients and optimizer states.
    Update,
    /// A checkpoint is written: a copy of the parameters that train, or of the states.
    Checkpoint,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "between the forward and the backward pass",
            Self::Gradients => "at the end of the backward pass",
            Self::Update => "in the update",
            Self::Checkpoint => "while a checkpoint is written",
        })
    }
}

/// The memory of a step, in bytes. Gradients and activations are not all there at the same time, so the peak is less than the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// All parameters as they are held: in `f32`, in 16 bits, in blocks of few bits.
    pub weights: u64,
    /// The gradients of the parameters that train.
    pub gradients: u64,
    /// The states of the optimizer.
    pub optimizer: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// The same for one token.
    pub activations_per_token: u64,
    /// The most that is there at a moment, without the process.
    pub peak: u64,
    /// The moment.
    pub moment: Moment,
}

impl MemoryEstimate {
    /// The memory of training `model` on the CPU, with the adapters that it has.
    ///
    /// Parameters are not read. A model that is made of its configuration alone
    /// ([`AutoCausalLm::from_config`](ft_core::AutoCausalLm::from_config)) takes no memory, and its parameters count as `f32`.
    pub fn of(model: &impl CausalLm, work: &Workload) -> Self {
        let all = parameters(model);
        let trained = |kind: Option<ParamKind>| -> u64 {
            let of_kind = |one: &&Parameter| one.trains && kind.is_none_or(|kind| one.kind == kind);
            let numbers = all.iter().filter(of_kind).map(|one| one.numbers as u64);
            F32 * numbers.sum::<u64>()
        };
        let (weights, gradients) = (held(model), trained(None));
        let optimizer = states(model, &all, work.optim);
        let (hidden, vocab) = (
            model.dims().hidden_size as u64,
            model.dims().vocab_size as u64,
        );
        let tokens = (work.batch_size * work.seq_len) as u64;
        let blocks = Blocks::of(model);
        let block = blocks.kept.iter().copied().max().unwrap_or(0);
        let in_blocks = match work.gradient_checkpointing {
            false => blocks.kept.iter().sum(),
            true => blocks.kept.len() as u64 * hidden + block,
        };
        // Besides: the last sum, its norm, the rows that have labels and their gradient; the angles of positions.
        let activations_per_token = F32 * (in_blocks + 4 * hidden + blocks.head_width);
        let activations = tokens * activations_per_token;
        let working = F32 * tokens * blocks.working;

        // The gradient of the head is made together with the loss. A tied table gets one of its own for what was looked up.
        let table = trained(Some(ParamKind::Embedding));
        let head = match model.head().projection {
            Projection::Tied(_) => table,
            Projection::Linear(_) => trained(Some(ParamKind::Head)),
        };
        let logits = F32 * (tokens * vocab).min(CHUNK_LOGITS.max(vocab));
        let earlier = match work.gradient_accumulation_steps {
            0 | 1 => 0,
            _ => gradients,
        };
        let again = match work.gradient_checkpointing {
            true => F32 * tokens * block,
            false => 0,
        };
        let update = match work.optim {
            Optim::AdamW | Optim::AdamW8bit => 0,
            // Others do not update in place, and make several tensors of the size of a parameter.
            _ => 4 * largest(model),
        };
        let moments = [
            (
                Moment::Loss,
                earlier + activations + head + logits.max(head).max(working),
            ),
            (
                Moment::Gradients,
                earlier + gradients + table.max(again + working),
            ),
            (Moment::Update, gradients + update),
            (
                Moment::Checkpoint,
                u64::from(work.saves) * gradients.max(optimizer),
            ),
        ];
        let (moment, most) =
            moments.into_iter().fold(
                (Moment::Loss, 0),
                |most, next| {
                    if next.1 > most.1 { next } else { most }
                },
            );
        Self {
            weights,
            gradients,
            optimizer,
            activations,
            activations_per_token,
            peak: weights + optimizer + most,
            moment,
        }
    }

    /// The peak of a process that has `program` bytes without the model: its code, the tokenizer, the data.
    pub fn of_process(&self, program: u64) -> u64 {
        self.peak + program + PROCESS
    }

    /// The estimate for people, in MB of 2²⁰ bytes, beside the memory of the machine if it is known.
    ///
    /// ```text
    /// weights                     275 MB
    /// gradients                    19 MB
    /// optimizer states             37 MB
    /// activations                2794 MB  0.68 MB a token
    /// program and data             82 MB
    /// peak                       3245 MB  between the forward and the backward pass
    /// this machine               7900 MB
    /// ```
    pub fn table(&self, program: u64, machine: Option<u64>) -> String {
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let of_token = format!("{:.2} MB a token", megabytes(self.activations_per_token));
        let mut rows = vec![
            ("weights", self.weights, String::new()),
            ("gradients", self.gradients, String::new()),
            ("optimizer states", self.optimizer, String::new()),
            ("activations", self.activations, of_token),
            ("program and data", program + PROCESS, String::new()),
            ("peak", self.of_process(program), self.moment.to_string()),
        ];
        rows.extend(machine.map(|bytes| ("this machine", bytes, String::new())));
        let lines = rows.into_iter().map(|(name, bytes, note)| {
            let line = format!("{name:<20} {:>10.0} MB  {note}", megabytes(bytes));
            line.trim_end().to_string()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The most rows of a batch, a power of two of at most `most`, with which a process stays within `limit` bytes; none if it does not even
/// with one row.
pub fn batch_size_within(
    model: &impl CausalLm,
    work: &Workload,
    program: u64,
    limit: u64,
    most: usize,
) -> Option<usize> {
    let fits = |batch_size: &usize| {
        let work = Workload {
            batch_size: *batch_size,
            ..*work
        };
        MemoryEstimate::of(model, &work).of_process(program) <= limit
    };
    let sizes = std::iter::successors(Some(1), |size| Some(2 * size));
    sizes.take_while(|size| *size <= most && fits(size)).last()
}

/// The bytes of all parameters as they are held.
fn held(model: &impl CausalLm) -> u64 {
    struct Held(u64);
    impl PathVisitor for Held {
        fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
            let bytes = match param.is_initialized() {
                true => param.val().dtype().size(),
                false => DType::F32.size(),
            };
            self.0 += (param.lazy_shape().num_elements() * bytes) as u64;
        }
        fn visit_packed(&mut self, _: &str, packed: &PackedParam) {
            self.0 += packed.num_bytes() as u64;
        }
    }
    let mut held = Held(0);
    module_path::visit_params(model, &mut held);
    held.0
}

/// The bytes of the largest parameter that trains.
fn largest(model: &impl CausalLm) -> u64 {
    let shapes = trainable::shapes(model);
    let numbers = shapes.values().map(|shape| shape.num_elements() as u64);
    F32 * numbers.max().unwrap_or(0)
}

/// The bytes of the optimizer's states.
fn states(model: &impl CausalLm, all: &[Parameter], optim: Optim) -> u64 {
    let kinds: BTreeMap<&str, ParamKind> = all
        .iter()
        .map(|one| (one.path.as_str(), one.kind))
        .collect();
    let of = |(path, shape): (&String, &burn::tensor::Shape)| {
        let numbers = shape.num_elements() as u64;
        let outer = [Some(&ParamKind::Embedding), Some(&ParamKind::Head)]
            .contains(&kinds.get(path.as_str()));
        match optim {
            Optim::AdamW => 2 * F32 * numbers,
            // A byte for each number, and the largest of each block.
            Optim::AdamW8bit => 2 * (numbers + F32 * numbers.div_ceil(ft_kernels::BLOCK as u64)),
            // A number for each row and column of a matrix.
            Optim::Adafactor => F32 * shape[..].iter().sum::<usize>() as u64,
            Optim::Lion => F32 * numbers,
            Optim::Sgd => 0,
            Optim::Muon if shape.num_dims() == 2 && !outer => F32 * numbers,
            Optim::Muon => 2 * F32 * numbers,
        }
    };
    trainable::shapes(model).iter().map(of).sum()
}

/// What the blocks of a model keep for a token, and need for a moment, in numbers.
struct Blocks {
    kept: Vec<u64>,
    working: u64,
    head_width: u64,
}

impl Blocks {
    fn of(model: &impl CausalLm) -> Self {
        let mut blocks = BTreeMap::<usize, Block>::new();
        model.for_each_part(&mut |path, part| {
            if let Some(number) = path.split('.').find_map(|name| name.parse().ok()) {
                let name = path.rsplit('.').next().unwrap_or(path);
                blocks.entry(number).or_default().add(name, part);
            }
        });
        let key_heads = model.key_heads().unwrap_or(1).max(1) as u64;
        let widths = blocks
            .values()
            .filter_map(|block| block.head_width(key_heads));
        let head_width = widths.max().unwrap_or(64).max(1);
        Self {
            kept: blocks
                .values()
                .map(|block| block.kept(head_width))
                .collect(),
            working: blocks.values().map(Block::working).max().unwrap_or(0),
            head_width,
        }
    }
}

/// The layers of a block by the last name of their paths.
#[derive(Default)]
struct Block {
    projections: Vec<(String, Widths)>,
    /// The width of a norm, and whether its output is kept.
    norms: Vec<(String, u64, bool)>,
}

#[derive(Clone, Copy)]
struct Widths {
    inputs: u64,
    outputs: u64,
    of_adapters: u64,
}

impl Block {
    fn add(&mut self, name: &str, part: Part<'_>) {
        let name = name.to_string();
        match part {
            Part::Linear(linear) => {
                let widths = Widths {
                    inputs: linear.in_features() as u64,
                    outputs: linear.out_features() as u64,
                    of_adapters: kept_by_adapters(linear),
                };
                self.projections.push((name, widths));
            }
            Part::RmsNorm(norm) => self.norms.push((name, norm.width() as u64, false)),
            Part::LayerNorm(norm) => {
                let width = norm.weight.lazy_shape()[0] as u64;
                self.norms.push((name, width, true));
            }
            _ => {}
        }
    }

    fn find(&self, names: &[&str]) -> Option<Widths> {
        let found = self
            .projections
            .iter()
            .find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, widths)| *widths)
    }

    fn has_norm(&self, name: &str) -> bool {
        self.norms.iter().any(|(own, ..)| own == name)
    }

    /// The projections that end attention and the feed-forward layer. GPT-2 has one name for both.
    fn ends(&self) -> [Option<Widths>; 2] {
        let same = self.projections.iter().filter(|(name, _)| name == "c_proj");
        let mut same = same.map(|(_, widths)| *widths);
        let (first, second) = (same.next(), same.next());
        [
            self.find(&["o_proj", "dense"]).or(first),
            self.find(&["down_proj", "dense_4h_to_h", "fc2"]).or(second),
        ]
    }

    fn is_gated(&self) -> bool {
        self.find(&["gate_proj", "gate_up_proj"]).is_some()
    }

    fn head_width(&self, key_heads: u64) -> Option<u64> {
        let keys = self.find(&["k_proj"]).map(|keys| keys.outputs);
        let fused = || {
            let all = self.find(&["qkv_proj", "query_key_value", "c_attn"])?;
            let queries = self.ends()[0]?.inputs;
            Some(all.outputs.saturating_sub(queries) / 2)
        };
        Some(keys.or_else(fused)? / key_heads)
    }

    fn kept(&self, head_width: u64) -> u64 {
        let [attention, feed_forward] = self.ends();
        let mut kept = 0;
        for (name, widths) in &self.projections {
            kept += widths.of_adapters;
            kept += match name.as_str() {
                "o_proj" | "dense" | "c_proj" | "down_proj" | "dense_4h_to_h" | "fc2" => 0,
                // The halves are copies, and the whole is what they are computed from again.
                "gate_up_proj" => 2 * widths.outputs,
                // The input and the output of the norm of heads.
                "q_proj" if self.has_norm("q_norm") => 2 * widths.outputs,
                "k_proj" if self.has_norm("k_norm") => 2 * widths.outputs,
                _ => widths.outputs,
            };
        }
        let of_hidden = |name: &str| !["q_norm", "k_norm"].contains(&name);
        for (name, width, is_layer_norm) in &self.norms {
            if of_hidden(name) {
                kept += width * if *is_layer_norm { 2 } else { 1 };
            }
        }
        if let Some(end) = attention {
            kept += end.inputs + end.inputs / head_width;
            // Norms after the sublayers only: the sums are kept as inputs of projections.
            let after = self.has_norm("post_feedforward_layernorm");
            if after && !self.has_norm("pre_feedforward_layernorm") {
                kept += 2 * end.outputs;
            }
            // Two norms of one sum.
            if self.has_norm("ln_mlp") {
                kept -= end.outputs;
            }
        }
        if let Some(end) = feed_forward
            && !self.is_gated()
        {
            kept += end.inputs;
        }
        kept
    }

    /// The backward pass of the feed-forward layer: two gradients of its width, and that of the sum.
    fn working(&self) -> u64 {
        self.ends()[1].map_or(0, |end| 2 * end.inputs + end.outputs)
    }
}

/// What the active adapters of a layer keep for a token, in numbers.
fn kept_by_adapters(linear: &Linear) -> u64 {
    let outputs = linear.out_features() as u64;
    let of = |adapter: &Adapter| {
        let a = ["lora_A.weight", "lora_A"];
        let rank = a.iter().find_map(|name| adapter.get(name));
        let is_low_rank = adapter.get("lora_magnitude_vector").is_none();
        match rank.map(|a| a.shape()[0] as u64) {
            Some(rank) if is_low_rank => rank,
            Some(rank) => rank + 2 * outputs,
            None => outputs,
        }
    };
    linear.adapters.active().map(of).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ft_core::{AutoCausalLm, ModelConfig};
    use serde_json::json;

    use super::*;

    fn smol() -> AutoCausalLm {
        let config = json!({
            "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "max_position_embeddings": 8192, "tie_word_embeddings": true,
        });
        let config = ModelConfig::from_json(config).expect("a configuration");
        AutoCausalLm::from_config(&config, &Device::default().autodiff()).expect("a model")
    }

    fn work() -> Workload {
        Workload {
            batch_size: 4,
            seq_len: 256,
            gradient_accumulation_steps: 1,
            optim: Optim::AdamW,
            gradient_checkpointing: false,
            saves: false,
        }
    }

    /// Two norms of 576, 576 + 192 + 192 of queries, keys and values, 576 and 9 of attention, twice 1536 of the gated layer.
    #[test]
    fn a_block_keeps_what_its_layers_say() {
        let model = smol();
        let blocks = Blocks::of(&model);
        assert_eq!(blocks.kept, [5769; 30]);
        assert_eq!(blocks.head_width, 64);
        // Nothing was read.
        assert_eq!(held(&model), 4 * 134_515_008);
    }

    #[test]
    fn parts_follow_from_the_settings() {
        let model = smol();
        let full = MemoryEstimate::of(&model, &work());
        assert_eq!(full.gradients, full.weights);
        assert_eq!(full.optimizer, 2 * full.weights);
        assert_eq!(full.moment, Moment::Loss);
        let of = |change: &dyn Fn(&mut Workload)| {
            let mut work = work();
            change(&mut work);
            MemoryEstimate::of(&model, &work)
        };
        let eight = of(&|work| work.optim = Optim::AdamW8bit);
        assert!(eight.optimizer * 35 / 10 < full.optimizer, "{eight:?}");
        let again = of(&|work| work.gradient_checkpointing = true);
        assert!(again.activations * 4 < full.activations, "{again:?}");
        assert_eq!(again.moment, Moment::Gradients);
        let accumulated = of(&|work| work.gradient_accumulation_steps = 2);
        assert_eq!(accumulated.peak, full.peak + full.gradients);
        let saves = of(&|work| {
            work.saves = true;
            work.batch_size = 1;
        });
        assert_eq!(saves.moment, Moment::Checkpoint);
        assert_eq!(saves.peak, saves.weights + 2 * saves.optimizer);
        let table = full.table(60 << 20, Some(8 << 30));
        assert!(
            table.contains("this machine               8192 MB"),
            "{table}"
        );
    }

    #[test]
    fn the_batch_size_is_the_largest_that_fits() {
        let model = smol();
        let peak = |batch_size| {
            let work = Workload {
                batch_size,
                ..work()
            };
            MemoryEstimate::of(&model, &work).of_process(0)
        };
        let found = |limit| batch_size_within(&model, &work(), 0, limit, 64);
        assert_eq!(found(peak(8)), Some(8));
        assert_eq!(found(peak(8) - 1), Some(4));
        assert_eq!(found(peak(1) - 1), None);
        assert_eq!(found(u64::MAX), Some(64));
    }
}
