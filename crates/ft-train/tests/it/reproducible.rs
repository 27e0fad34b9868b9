//! Full fine-tuning of a model whose embedding is large enough for Burn to sum it on several threads.
//!
//! Burn's sum of 4·1024² numbers and more adds pieces in the order in which threads finish them, so that each run
//! differs. Below that size every sum is in order, which hid the fault from smaller models.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::safetensors_folder::module_tensors;
use ft_core::{AutoCausalLm, ModelConfig};
use ft_data::{Batch, Batches};
use ft_train::{
    Callback, Error, ModelView, StepRecord, TrainConfig, TrainReport, Trainer, Verdict,
    global_norm, next_token_loss,
};
use serde_json::json;

use crate::model::{alone, device, quiet};

const VOCAB: usize = 1 << 16;
const WIDTH: usize = 128;

fn model() -> AutoCausalLm {
    let config = ModelConfig::from_json(json!({
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "initializer_range": 0.05,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }));
    let device = device();
    device.seed(7);
    AutoCausalLm::from_config(&config.expect("is valid"), &device).expect("is a model")
}

/// Rows of ids that lie far apart, so that all parts of the embedding have gradients of about the same size.
struct Rows;

impl Batches for Rows {
    type Batch = Batch;

    fn len(&self, _: usize) -> usize {
        8
    }

    fn batch(&self, epoch: usize, index: usize) -> Batch {
        let (batch, seq) = (2, 16);
        let id = |place: usize| ((epoch * 31 + index * 7 + place) * 4_099 % VOCAB) as i64;
        let input_ids: Vec<i64> = (0..batch * seq).map(id).collect();
        Batch {
            labels: input_ids.clone(),
            input_ids,
            batch,
            seq,
            lengths: vec![seq; batch],
            ..Batch::default()
        }
    }
}

/// Notes the norm of every step, and ends the run after some step as a kill would.
struct Norms(Rc<RefCell<Vec<f64>>>, Option<usize>);

impl<M> Callback<M> for Norms {
    fn on_step(&mut self, _: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        self.0.borrow_mut().push(record.grad_norm);
        match self.1 == Some(record.step) {
            true => Err("killed".into()),
            false => Ok(ControlFlow::Continue(())),
        }
    }
}

/// Losses, norms and parameters of a run.
struct Finished {
    report: TrainReport,
    norms: Vec<f64>,
    parameters: Vec<(String, TensorData)>,
}

fn run(folder: Option<&Path>, kill: Option<usize>, resume: bool) -> Result<Finished, Error> {
    let config = TrainConfig {
        learning_rate: 1e-2,
        epochs: 1.0,
        gradient_accumulation_steps: 2,
        // Always clipped, and with this epsilon proportional to the gradient: the norm is a factor of every update.
        max_grad_norm: Some(1e-2),
        eps: 1e-2,
        weight_decay: 0.1,
        save_every: folder.map(|_| 2),
        output_dir: folder.map(Path::to_path_buf),
        resume,
        ..TrainConfig::default()
    };
    let norms = Rc::new(RefCell::new(Vec::new()));
    let (model, report) = Trainer::new(quiet(config), Rows, next_token_loss)
        .with_callback(Norms(norms.clone(), kill))
        .fit(model())?;
    let norms = norms.borrow().clone();
    Ok(Finished {
        report,
        norms,
        parameters: module_tensors(&model.valid()),
    })
}

#[test]
fn full_fine_tuning_of_a_large_embedding_gives_the_same_bits_in_each_run_and_when_resumed() {
    let _turn = alone();
    let first = run(None, None, false).expect("trains");
    assert_eq!(first.report.steps, 4);
    let (name, embedding) = &first.parameters[0];
    assert_eq!(embedding.num_elements(), VOCAB * WIDTH, "{name}");
    for _ in 0..2 {
        let again = run(None, None, false).expect("trains");
        assert_eq!(again.norms, first.norms);
        assert_eq!(again.report.train_losses, first.report.train_losses);
        assert!(again.parameters == first.parameters, "two runs differ");
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    assert!(run(Some(folder.path()), Some(3), false).is_err());
    let resumed = run(Some(folder.path()), None, true).expect("resumes");
    assert_eq!(resumed.report.resumed_from, Some(2));
    assert_eq!(resumed.norms, first.norms[2..]);
    assert_eq!(resumed.report.train_losses, first.report.train_losses);
    assert!(
        resumed.parameters == first.parameters,
        "the resumed run differs"
    );
}

#[test]
fn the_norm_of_a_large_gradient_has_the_same_bits_whenever_it_is_taken() {
    #[derive(Module, Debug)]
    struct Large {
        weight: burn::module::Param<Tensor<1>>,
    }
    let device = Device::default().autodiff();
    let numbers: Vec<f32> = (0..VOCAB * WIDTH)
        .map(|i| (i as f32 * 0.37).sin() * (1.0 + (i >> 16) as f32))
        .collect();
    let exact: f64 = (numbers.iter().map(|x| f64::from(*x).powi(2)))
        .sum::<f64>()
        .sqrt();
    let data = TensorData::new(numbers, [VOCAB * WIDTH]);
    let large = Large {
        weight: burn::module::Param::from_data(data, &device),
    };
    // Of half the sum of squares the gradient is the weight itself.
    let loss = large.weight.val().square().sum() * 0.5;
    let gradients = GradientsParams::from_grads(loss.backward(), &large);
    let norm = global_norm(&large, &gradients);
    // More threads than processors, so that pieces change hands.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build();
    pool.expect("starts").install(move || {
        for _ in 0..50 {
            assert_eq!(global_norm(&large, &gradients), norm);
        }
    });
    assert!((norm - exact).abs() < 1e-12 * exact, "{norm} {exact}");
}
