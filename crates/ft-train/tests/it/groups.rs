//! Which parameters train, and groups with settings of their own.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, activation};
use ft_core::layers::{Layout, Linear};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, LossSum, ModelConfig, Parts};
use ft_data::{Batch, Batches};
use ft_train::{
    AdamW, Error, NamedOptimizer, Optim, OptimizerStates, ParamGroup, ParamTable, Schedule,
    Selection, StepContext, TrainConfig, Trainer, train_only,
};
use serde_json::json;

use crate::model::{alone, device, parameters, quiet};

/// Two layers with a tanh between them.
#[derive(Module, Parts, Debug)]
struct Two {
    first: Linear,
    second: Linear,
}

/// What PyTorch has: `golden/adamw_groups.py`.
struct Golden(BTreeMap<String, TensorData>);

impl Golden {
    fn read() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adamw_groups.safetensors");
        Self(read_tensors(&path).expect("the golden file is there"))
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.0[name].clone(), &device())
    }

    fn model(&self) -> Two {
        let layer = |name: &str, inputs, outputs| {
            let mut layer = Linear::new(inputs, outputs, true, Layout::OutIn, 0.0, &device());
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}.0"));
            layer.weight = Param::from_tensor(self.tensor(&weight)).into();
            layer.bias = Some(Param::from_tensor(self.tensor(&bias)));
            layer
        };
        Two {
            first: layer("first", 5, 6),
            second: layer("second", 6, 4),
        }
    }

    fn check(&self, model: &impl Module, step: usize) {
        for (path, values) in parameters(model) {
            let expected = self.0[&format!("{path}.{step}")].iter::<f32>();
            for (found, expected) in values.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 2e-6,
                    "step {step}: {path} {found} {expected}"
                );
            }
        }
    }
}

impl Batches for Golden {
    type Batch = [Tensor<2>; 2];
    fn len(&self, _: usize) -> usize {
        6
    }
    fn batch(&self, _: usize, index: usize) -> [Tensor<2>; 2] {
        ["x", "y"].map(|name| {
            let all = self.tensor::<3>(name).narrow(0, index, 1);
            let [_, rows, width] = all.dims();
            all.reshape([rows, width])
        })
    }
}

fn squared_error(model: &Two, [x, y]: &[Tensor<2>; 2]) -> LossSum {
    let hidden = activation::tanh(model.first.forward(x.clone().unsqueeze::<3>()));
    let error = model.second.forward(hidden) - y.clone().unsqueeze();
    LossSum {
        sum: error.square().sum(),
        count: 3,
    }
}

/// The settings are those of the first layer; the second has its own.
fn config() -> TrainConfig {
    quiet(TrainConfig {
        learning_rate: 0.05,
        schedule: Schedule::Linear,
        warmup_steps: 2,
        max_grad_norm: Some(1.5),
        weight_decay: 0.1,
        betas: (0.9, 0.99),
        ..TrainConfig::default()
    })
}

fn second() -> ParamGroup {
    ParamGroup {
        learning_rate: Some(0.02),
        weight_decay: Some(0.3),
        ..ParamGroup::new([Selection::Regex("second".into())])
    }
}

#[test]
fn six_steps_of_two_groups_are_those_of_pytorch() {
    let _turn = alone();
    let golden = Golden::read();
    for steps in 1..=6 {
        // A part of the run: the schedule is that of six steps.
        let mut optimizer = OptimizerStates::<AdamW>::adamw(&config());
        let mut model = golden.model();
        optimizer = optimizer
            .with_groups(&model, &[second()], &config())
            .expect("there are such parameters");
        for step in 0..steps {
            let loss = squared_error(&model, &golden.batch(0, step));
            let mut window = ft_train::Accumulator::new();
            window.add(&model, loss).expect("has gradients");
            let window = window.finish();
            let norm = ft_train::global_norm(&model, &window.gradients) / 3.0;
            let scale = ft_train::clip_factor(norm, 1.5) / 3.0;
            let rate = config().learning_rate_at(step, 6);
            model = optimizer.step(model, window.gradients, rate, scale);
        }
        golden.check(&model, steps);
    }
}

#[test]
fn the_trainer_takes_groups_and_checkpoints_know_them() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let fit = |groups: Vec<ParamGroup>, resume| {
        let config = TrainConfig {
            output_dir: Some(folder.path().to_path_buf()),
            resume,
            ..config()
        };
        let golden = Golden::read();
        let model = golden.model();
        Trainer::new(
            config,
            golden,
            |model: &Two, batch: &[Tensor<2>; 2], _: &StepContext| {
                Ok(squared_error(model, batch).into())
            },
        )
        .with_groups(groups)
        .fit(model)
    };
    let (model, _) = fit(vec![second()], false).expect("trains");
    Golden::read().check(&model, 6);
    let refused = fit(Vec::new(), true).map(|_| ()).expect_err("resumed");
    let text = refused.to_string();
    assert!(
        text.contains("param_groups: [{\"select\":[\"regex:second\"]"),
        "{text}"
    );
    assert!(fit(vec![second()], true).is_ok());
}

#[test]
fn an_optimizer_of_a_group_is_its_own() {
    let _turn = alone();
    let golden = Golden::read();
    let mut model = golden.model();
    // Large enough for moments in 8 bits.
    let wide = Linear::new(64, 80, true, Layout::OutIn, 0.1, &device());
    model.second = wide;
    let group = ParamGroup {
        optim: Some(Optim::AdamW8bit),
        ..ParamGroup::new([Selection::Regex("second".into())])
    };
    let mut optimizer = OptimizerStates::<AdamW>::adamw(&config())
        .with_groups(&model, &[group], &config())
        .expect("there are such parameters");
    let loss = model.first.weight.val().square().sum() + model.second.weight.val().square().sum();
    let mut window = ft_train::Accumulator::new();
    let loss = LossSum {
        sum: loss,
        count: 1,
    };
    window.add(&model, loss).expect("has gradients");
    optimizer.step(model, window.finish().gradients, 0.01, 1.0);
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("optimizer.safetensors");
    optimizer.save(&file).expect("saves");
    let saved = read_tensors(&file).expect("reads");
    assert!(
        saved.contains_key("first.weight.moment_1"),
        "{:?}",
        saved.keys()
    );
    assert!(
        saved.contains_key("second.weight.moment_1.codes"),
        "{:?}",
        saved.keys()
    );
}

fn llama(tied: bool) -> AutoCausalLm {
    let config = ModelConfig::from_json(json!({
        "model_type": "llama",
        "vocab_size": 32,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "initializer_range": 0.05,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": true,
        "tie_word_embeddings": tied,
    }));
    AutoCausalLm::from_config(&config.expect("is valid"), &device()).expect("is a model")
}

/// Muon is made for the matrices of hidden layers, in groups too.
#[test]
fn embeddings_and_head_of_a_model_with_muon_have_adamw() {
    let _turn = alone();
    let muon = TrainConfig {
        optim: Optim::Muon,
        ..config()
    };
    let adamw = config();
    let second = ParamGroup {
        optim: Some(Optim::Muon),
        ..ParamGroup::new([Selection::Head, Selection::Top(1)])
    };
    for (config, groups, hidden) in [
        (&muon, vec![], "layers.0."),
        (&adamw, vec![second], "layers.2."),
    ] {
        let model = llama(false);
        let mut optimizer = OptimizerStates::<NamedOptimizer>::from_config(config)
            .with_groups(&model, &groups, config)
            .expect("there are such parameters");
        let batch = Batch {
            input_ids: vec![1, 2, 3, 4],
            labels: vec![1, 2, 3, 4],
            batch: 1,
            seq: 4,
            lengths: vec![4],
            ..Batch::default()
        };
        let context = StepContext::training(&device(), 1, 1, 0);
        let output = ft_train::next_token_loss(&model, &batch, &context).expect("has a loss");
        let mut window = ft_train::Accumulator::new();
        window.add(&model, output).expect("has gradients");
        let model = optimizer.step(model, window.finish().gradients, 0.01, 1.0);
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("optimizer.safetensors");
        optimizer.save(&file).expect("saves");
        let saved = read_tensors(&file).expect("reads");
        for (path, adamw) in [
            ("lm_head.weight".to_string(), true),
            ("model.embed_tokens.weight".to_string(), true),
            (format!("model.{hidden}mlp.up_proj.weight"), false),
            (format!("model.{hidden}input_layernorm.weight"), true),
        ] {
            let name = format!("{path}.moment_2");
            assert_eq!(
                saved.contains_key(&name),
                adamw,
                "{path}: {:?}",
                saved.keys()
            );
        }
        // Another process finds them again.
        let again = OptimizerStates::<NamedOptimizer>::from_config(config);
        let mut again = again
            .with_groups(&model, &groups, config)
            .expect("as before");
        again.load(&file, &model).expect("loads");
    }
}

fn selected(rule: &str, model: &AutoCausalLm) -> Vec<String> {
    let rule: Selection = rule.parse().expect("is a rule");
    rule.paths(model).expect("selects something")
}

#[test]
fn every_rule_selects_what_it_says() {
    let model = llama(false);
    let all = parameters(&model);
    // 3 blocks of 4 projections with biases, 3 without and 2 norms, and embedding, norm and head.
    assert_eq!(all.len(), 3 * (8 + 3 + 2) + 3);
    for (rule, count, example) in [
        ("all", 42, "model.embed_tokens.weight"),
        ("head", 1, "lm_head.weight"),
        ("embeddings", 1, "model.embed_tokens.weight"),
        ("norms", 7, "model.norm.weight"),
        ("biases", 12, "model.layers.2.self_attn.q_proj.bias"),
        ("top:1", 13, "model.layers.2.mlp.up_proj.weight"),
        ("bottom:2", 26, "model.layers.1.input_layernorm.weight"),
        (
            r"regex:.*\.mlp\..*",
            9,
            "model.layers.0.mlp.gate_proj.weight",
        ),
        (
            r"regex:model\.layers\.\d\.self_attn\.v_proj",
            6,
            "model.layers.1.self_attn.v_proj.bias",
        ),
    ] {
        let paths = selected(rule, &model);
        assert_eq!(paths.len(), count, "{rule}: {paths:?}");
        assert!(
            paths.iter().any(|path| path == example),
            "{rule}: {paths:?}"
        );
        assert!(paths.iter().all(|path| all.contains_key(path)), "{rule}");
    }
}

#[test]
fn what_selects_nothing_is_an_error_that_lists_what_there_is() {
    for (rule, part) in [
        ("head", "1 tensors of kind embedding"),
        ("top:4", "3 blocks"),
        ("adapters", "12 tensors of kind bias"),
        (
            "regex:model.layers.0.mlp",
            "model.layers.N.mlp.up_proj.weight",
        ),
    ] {
        let rule: Selection = rule.parse().expect("is a rule");
        let error = rule.paths(&llama(true)).expect_err("selects something");
        let text = error.to_string();
        assert!(matches!(error, Error::MatchesNothing { .. }), "{text}");
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(matches!(
        Selection::Regex("(".into()).paths(&llama(true)),
        Err(Error::Regex { .. })
    ));
    for wrong in ["top", "top:0", "top:x", "heads", "all:1"] {
        assert!(wrong.parse::<Selection>().is_err(), "{wrong}");
    }
}

#[test]
fn train_only_trains_what_its_rules_select_and_nothing_else() {
    let rules = ["biases", "top:1"].map(|rule| rule.parse().expect("is a rule"));
    let model = train_only(llama(false), &rules).expect("selects something");
    let table = ParamTable::new(&model, &[]).expect("no groups");
    let all = parameters(&model);
    let trains: usize = all
        .iter()
        .filter(|(path, _)| path.starts_with("model.layers.2.") || path.ends_with(".bias"))
        .map(|(_, values)| values.len())
        .sum();
    let numbers: usize = all.values().map(Vec::len).sum();
    assert_eq!(table.numbers(), (trains, numbers));
    let group = ParamGroup {
        learning_rate: Some(1e-3),
        ..ParamGroup::new([Selection::Norms])
    };
    let table = ParamTable::new(&model, std::slice::from_ref(&group)).expect("norms train");
    let text = table.to_string();
    let line = |kind: &str, count: &str, trains: &str| {
        (text.lines()).any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[..2] == [kind, count] && line.ends_with(trains)
        })
    };
    assert!(line("norm", "2", "yes, group 0"), "{text}");
    assert!(line("norm", "5", "no"), "{text}");
    assert!(line("bias", "12", "yes"), "{text}");
    assert!(line("head", "1", "no"), "{text}");
    // Blocks are counted over the whole model, not over what trains.
    let bottom = train_only(llama(false), &[Selection::Bottom(1)]).expect("selects something");
    let top = ParamGroup::new([Selection::Top(1)]);
    assert!(ParamTable::new(&bottom, &[top]).is_err());
    // Of a group must train what it selects.
    let frozen = ParamGroup::new([Selection::Head]);
    assert!(matches!(
        ParamTable::new(&model, &[frozen]),
        Err(Error::MatchesNothing { .. })
    ));
    // The second group is left with nothing.
    assert!(matches!(
        ParamTable::new(&model, &[group.clone(), group]),
        Err(Error::EmptyGroup { number: 1, .. })
    ));
}

/// What does not train keeps its bits, and has no state.
#[test]
fn a_model_of_which_only_biases_train_keeps_the_rest() {
    let _turn = alone();
    let golden = Golden::read();
    let model = train_only(golden.model(), &[Selection::Biases]).expect("has biases");
    let before = parameters(&model);
    let (after, _) = Trainer::new(
        config(),
        golden,
        |model: &Two, batch: &[Tensor<2>; 2], _: &StepContext| {
            Ok(squared_error(model, batch).into())
        },
    )
    .fit(model)
    .expect("trains");
    for (path, values) in parameters(&after) {
        assert_eq!(values == before[&path], path.ends_with("weight"), "{path}");
    }
}
