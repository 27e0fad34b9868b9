//! Laws of EVA.

use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{AutoCausalLm, CausalLm, Parts, TokenBatch};
use ft_peft::{
    EvaConfig, InitLoraWeights, LoraConfig, TargetModules, eva_initialise, load_adapter,
    save_adapter,
};

use crate::adapted_models::{distance, logits, model, with_init, with_random_b};

pub(crate) fn eva_batches(device: &Device, rows: usize) -> Vec<(TokenBatch, Vec<i64>)> {
    let batch = |start: i64| {
        let ids: Vec<i64> = (0..rows as i64 * 10)
            .map(|i| (i * i + 7 * i + start) % 50)
            .collect();
        let labels = ids.iter().map(|id| if id % 5 == 0 { -100 } else { *id });
        let labels = labels.collect();
        let ids = TensorData::new(ids, [rows, 10]);
        (TokenBatch::new(Tensor::from_data(ids, device)), labels)
    };
    vec![batch(0), batch(3)]
}

fn run(model: &AutoCausalLm, tokens: &TokenBatch) {
    let _ = model.hidden_states(tokens, None);
}

#[test]
fn eva_distributes_the_ranks_and_changes_nothing() {
    let device = Device::default();
    let base = model("llama", &device);
    let before = logits(&base, &device);
    let batches = eva_batches(&device, 12);
    let config = with_init(InitLoraWeights::Eva);
    let model =
        eva_initialise(base.clone(), &config, "default", 1, &batches, run).expect("initialises");
    assert_eq!(logits(&model, &device), before);
    let (mut ranks, mut layers) = (Vec::new(), 0);
    base.for_each_linear(&mut |path, _| layers += usize::from(path != "lm_head"));
    model.for_each_linear(&mut |path, linear| {
        for adapter in linear.adapters.iter() {
            let a = adapter.val2("lora_A.weight");
            let [r, _] = a.dims();
            ranks.push(r);
            let gram = a.clone().matmul(a.transpose());
            let one = Tensor::<2>::eye(r, &device);
            assert!(
                distance(&gram.into_data(), &one.into_data()) < 1e-5,
                "{path}"
            );
        }
    });
    assert_eq!(ranks.iter().sum::<usize>(), 4 * layers);
    assert!(
        ranks.iter().all(|r| (1..=8).contains(r)) && ranks.iter().any(|r| *r != 4),
        "{ranks:?}"
    );

    // the ranks are in the settings, so the file is complete
    let model = with_random_b(model, "default");
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base, folder.path(), "default", false).expect("loads");
    assert_eq!(logits(&loaded, &device), logits(&model, &device));
    let saved = LoraConfig::from_pretrained(folder.path()).expect("reads");
    assert_eq!(saved.init_lora_weights, InitLoraWeights::Eva);
    assert_eq!(saved.eva_config, Some(EvaConfig::default()));
}

/// Without redistribution every layer keeps its rank, and its `A` is the principal components of what it reads.
#[test]
fn eva_takes_the_principal_components_of_the_inputs() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = LoraConfig {
        eva_config: Some(EvaConfig {
            rho: 1.0,
            ..EvaConfig::default()
        }),
        ..with_init(InitLoraWeights::Eva)
            .with_targets(TargetModules::names(["layers.0.self_attn.q_proj"]))
    };
    let batches = &eva_batches(&device, 12)[..1];
    let model =
        eva_initialise(base.clone(), &config, "default", 1, batches, run).expect("initialises");
    let mut a = None;
    model.for_each_linear(&mut |_, linear| {
        a = a.take().or_else(|| {
            linear
                .adapters
                .first()
                .map(|adapter| adapter.val2("lora_A.weight"))
        });
    });
    let a = a.expect("an adapter");
    // what the first block reads: the normed embeddings of the tokens that count
    let mut embedding = None;
    let mut norm = None;
    base.for_each_part(&mut |path, part| match part {
        ft_core::Part::Embedding(table) => embedding = Some(table.clone()),
        ft_core::Part::RmsNorm(part) if path == "model.layers.0.input_layernorm" => {
            norm = Some(part.clone())
        }
        _ => {}
    });
    let (tokens, labels) = &batches[0];
    let x = embedding
        .expect("an embedding")
        .forward(tokens.input_ids.clone());
    let x = norm.expect("a norm").forward(x).flatten::<2>(0, 1);
    let counted: Vec<i64> = (0..labels.len() as i64)
        .filter(|i| labels[*i as usize] != -100)
        .collect();
    let x = x.select(0, Tensor::from_data(&counted[..], &device));
    let x = x.clone() - x.mean_dim(0);
    // every component is an eigenvector of the covariance, in falling order
    let image = a.clone().matmul(x.clone().transpose()).matmul(x);
    let values = image.clone().square().sum_dim(1).sqrt();
    let difference = distance(&image.into_data(), &(a * values.clone()).into_data());
    let values: Vec<f32> = values.into_data().iter::<f32>().collect();
    assert!(difference < 1e-4 * values[0], "{difference} {values:?}");
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
}

/// Without the mask of labels all tokens count but those of padding.
#[test]
fn padding_does_not_count() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = LoraConfig {
        eva_config: Some(EvaConfig {
            rho: 1.0,
            use_label_mask: false,
            ..EvaConfig::default()
        }),
        ..with_init(InitLoraWeights::Eva)
            .with_targets(TargetModules::names(["layers.0.self_attn.q_proj"]))
    };
    let first = |batch: &(TokenBatch, Vec<i64>)| {
        let made = eva_initialise(
            base.clone(),
            &config,
            "default",
            1,
            std::slice::from_ref(batch),
            run,
        );
        let mut a = None;
        made.expect("initialises")
            .for_each_linear(&mut |_, linear| {
                let adapter = linear.adapters.first();
                a = a
                    .take()
                    .or_else(|| adapter.map(|adapter| adapter.val2("lora_A.weight")));
            });
        a.expect("an adapter").into_data()
    };
    let rows = 12;
    let (plain, labels) = eva_batches(&device, rows).remove(0);
    let expected = first(&(plain.clone(), labels.clone()));
    // The same rows with five places of padding behind each.
    let widened = |numbers: Vec<i64>, padding: i64| -> Vec<i64> {
        let rows = numbers.chunks(10);
        rows.flat_map(|row| row.iter().copied().chain([padding; 5]))
            .collect()
    };
    let ids = widened(plain.input_ids.to_data().iter::<i64>().collect(), 7);
    let mut padded = TokenBatch::new(Tensor::from_data(TensorData::new(ids, [rows, 15]), &device));
    let labels = widened(labels, 7);
    let counted = first(&(padded.clone(), labels.clone()));
    assert!(
        distance(&counted, &expected) > 1e-2,
        "padding counts without segments"
    );
    let segments = widened(vec![1; rows * 10], 0);
    padded.segment_ids = Some(Tensor::from_data(
        TensorData::new(segments, [rows, 15]),
        &device,
    ));
    assert!(distance(&first(&(padded, labels)), &expected) < 1e-4);
}

#[test]
fn eva_with_too_little_data_is_an_error() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = LoraConfig {
        r: 8,
        ..with_init(InitLoraWeights::Eva)
    };
    for batches in [Vec::new(), eva_batches(&device, 1)] {
        let error = eva_initialise(base.clone(), &config, "default", 1, &batches, run)
            .expect_err("refused");
        assert!(error.to_string().contains("batch"), "{error}");
    }
}

#[test]
fn settings_that_eva_cannot_use_are_refused() {
    let device = Device::default();
    let batches = eva_batches(&device, 12);
    let refused = |change: fn(&mut LoraConfig), reason: &str| {
        let mut config = with_init(InitLoraWeights::Eva);
        change(&mut config);
        let model = model("llama", &device);
        let error = eva_initialise(model, &config, "default", 1, &batches, run);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(
        |config| config.common.modules_to_save = vec!["nrom".into()],
        "nrom",
    );
    refused(
        |config| {
            config.common.target_modules = Some(TargetModules::names(["q_proj", "embed_tokens"]))
        },
        "embed_tokens is an embedding",
    );
}
