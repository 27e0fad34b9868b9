//! A model that is none of ft's, of public items only: a body of its own under a head, trained with LoRA, generated
//! from, saved and loaded.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft::core::layers::{Embedding, LayerNorm, attend, run_blocks, split_heads};
use ft::core::{
    Backbone, CausalLm, Dims, GenerationConfig, Head, Keys, KvCache, Layout, Linear, Parts, Pass,
    SaveOptions, TokenBatch, Weights, generate, load_pretrained, save_pretrained,
};
use ft::data::{Loader, Tokenized, collate_padded};
use ft::kernels::AttentionMask;
use ft::peft::{LoraConfig, attach, load_adapter, merge_and_unload, save_adapter};
use ft::train::{TrainConfig, Trainer};
use serde_json::json;

const VOCAB: usize = 24;
const WIDTH: usize = 16;

/// One head-less stack of blocks that attend and nothing else, and a head that is not tied.
#[derive(Module, Parts, Debug)]
#[parts(crate = ft::core, output = "readout")]
struct Attender {
    stack: Stack,
    readout: Linear,
}

#[derive(Module, Parts, Debug)]
#[parts(crate = ft::core)]
struct Stack {
    tokens: Embedding,
    places: Embedding,
    blocks: Vec<Block>,
}

#[derive(Module, Parts, Debug)]
#[parts(crate = ft::core)]
struct Block {
    norm: LayerNorm,
    // Paths drop the underscore.
    in_: Linear,
    out: Linear,
}

impl Attender {
    fn new(device: &Device) -> Self {
        let linear = |from, to| Linear::new(from, to, false, Layout::OutIn, 0.3, device);
        let block = || Block {
            norm: LayerNorm::new(WIDTH, 1e-5, device),
            in_: linear(WIDTH, 3 * WIDTH),
            out: linear(WIDTH, WIDTH),
        };
        Self {
            stack: Stack {
                tokens: Embedding::new(VOCAB, WIDTH, 0.5, device),
                places: Embedding::new(64, WIDTH, 0.5, device),
                blocks: (0..2).map(|_| block()).collect(),
            },
            readout: linear(WIDTH, VOCAB),
        }
    }
}

impl CausalLm for Attender {
    fn body(&self) -> &dyn Backbone {
        &self.stack
    }

    fn head(&self) -> Head<'_> {
        Head::linear(&self.readout)
    }
}

impl Backbone for Stack {
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: VOCAB,
            hidden_size: WIDTH,
            num_layers: self.blocks.len(),
            max_position_embeddings: 64,
        }
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.tokens.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let mask = place.causal_mask(None);
        run_blocks(
            &self.blocks,
            embeddings + self.places.forward(place.positions),
            pass,
            move |layer, block, x, cache| block.forward(layer, x, &mask, cache),
            |x| x,
        )
    }
}

impl Block {
    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let all = self.in_.forward(self.norm.forward(x.clone()));
        let part = |i| split_heads(all.clone().narrow(2, i * WIDTH, WIDTH), 2);
        let attended = attend([part(0), part(1), part(2)], 0.35, mask, layer, cache);
        x + self.out.forward(attended)
    }
}

/// Rows that count upwards from different numbers.
fn rows() -> Vec<Tokenized> {
    (0..20u32)
        .map(|first| {
            let input_ids: Vec<u32> = (0..12).map(|i| 2 + (first + i) % 20).collect();
            let labels = input_ids.iter().map(|&id| i64::from(id)).collect();
            Tokenized { input_ids, labels }
        })
        .collect()
}

fn logits(model: &Attender, device: &Device) -> Vec<f32> {
    let tokens = TokenBatch::from_ids(&[2, 3, 4, 5], device);
    let logits = model.logits(&tokens, None).into_data();
    logits.convert::<f32>().try_to_vec().expect("f32")
}

#[test]
fn a_body_of_its_own_is_trained_generated_from_saved_and_loaded() {
    let device = Device::default().autodiff();
    device.seed(5);
    let base = Attender::new(&device);
    let mut paths = Vec::new();
    base.for_each_linear(&mut |path, _| paths.push(path.to_string()));
    assert_eq!(
        paths,
        [
            "stack.blocks.0.in",
            "stack.blocks.0.out",
            "stack.blocks.1.in",
            "stack.blocks.1.out",
            "readout"
        ]
    );

    let lora = LoraConfig {
        r: 8,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };
    let model = attach(base.clone(), &lora, "default", 1).expect("attaches");
    let batches = Loader::new(rows(), 4, Some(3), |rows: &[&Tokenized]| {
        collate_padded(rows, 1, 0)
    })
    .expect("loads");
    let config = TrainConfig {
        learning_rate: 2e-2,
        max_steps: Some(120),
        progress: false,
        ..TrainConfig::default()
    };
    let (model, report) = Trainer::new(config, batches, ft::train::next_token_loss)
        .fit(model)
        .expect("trains");
    let losses = &report.train_losses;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.3 * first, "from {first} to {last}");

    let model = model.valid();
    let plain = Device::default();
    let config = GenerationConfig {
        max_new_tokens: 5,
        ..GenerationConfig::default()
    };
    let mut listen = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
    let prompts = [vec![5, 6, 7, 8], vec![12, 13]];
    let texts = generate(&model, None, &prompts, &config, &plain, &mut listen).expect("generates");
    assert_eq!(texts[0].token_ids, [9, 10, 11, 12, 13]);
    assert_eq!(texts[1].token_ids, [14, 15, 16, 17, 18]);

    let folder = tempfile::TempDir::new().expect("temporary folder");
    let adapter = folder.path().join("adapter");
    save_adapter(&model, "default", &adapter).expect("saves the adapter");
    let again = load_adapter(base.valid(), &adapter, "default", false).expect("loads the adapter");
    assert_eq!(logits(&again, &plain), logits(&model, &plain));

    let merged = merge_and_unload(model).expect("merges");
    let whole = folder.path().join("model");
    save_pretrained(
        &merged,
        json!({"model_type": "attender"}),
        &whole,
        &SaveOptions::default(),
    )
    .expect("saves");
    for weights in [Weights::F32, Weights::Stored] {
        let loaded = load_pretrained(Attender::new(&plain), &whole, weights, &Keys::default());
        let loaded = loaded.expect("loads");
        assert_eq!(logits(&loaded, &plain), logits(&merged, &plain));
    }
}
