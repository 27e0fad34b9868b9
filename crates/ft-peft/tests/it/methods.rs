//! Adapters of every method that PEFT saved, against what PEFT computes with them (`golden/methods.py`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use ft_core::layers::{AdapterTensor, AnyParam};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::{read_tensors, write_tensors};
use ft_core::{AutoCausalLm, Backbone, Bert, CausalLm, Parts, Pass, TokenBatch, causal_lm_loss};
use ft_peft::{
    Combination, Ia3Config, Method, attach, combine, load_adapter, merge_and_unload, peft_types,
    read_config, save_adapter, set_active, trainable_parameters,
};
use serde_json::Value;

use crate::adapted_models::{lora, stirred, with_adapter};
use crate::golden::{assert_close, folder, saved_settings, saved_tensors};
use crate::prompts::configs;

type Tensors = BTreeMap<String, TensorData>;

/// A base of the golden files.
pub(crate) trait Base: Module + Parts {
    fn load(folder: &Path, device: &Device) -> Self;

    /// The output and the loss for the base's inputs.
    fn compute(&self, inputs: &Tensors, device: &Device) -> (Tensor<3>, Tensor<1>);
}

fn ids(inputs: &Tensors, device: &Device) -> TokenBatch {
    TokenBatch::new(Tensor::<2, Int>::from_data(
        inputs["input_ids"].clone(),
        device,
    ))
}

impl Base for AutoCausalLm {
    fn load(folder: &Path, device: &Device) -> Self {
        Self::from_pretrained(folder, device).expect("loads")
    }

    fn compute(&self, inputs: &Tensors, device: &Device) -> (Tensor<3>, Tensor<1>) {
        let tokens = ids(inputs, device);
        let labels = inputs["input_ids"].clone().convert::<i64>();
        let labels: Vec<i64> = labels.try_to_vec().expect("i64");
        let logits = self.logits(&tokens, None);
        let loss = causal_lm_loss(self.hidden_states(&tokens, None), self.head(), &labels);
        (logits, loss.sum / loss.count as f64)
    }
}

impl Base for Bert {
    fn load(folder: &Path, device: &Device) -> Self {
        Self::from_pretrained(folder, device).expect("loads")
    }

    fn compute(&self, inputs: &Tensors, device: &Device) -> (Tensor<3>, Tensor<1>) {
        let embeddings = self.embed(ids(inputs, device).input_ids);
        let output = self.forward(embeddings, Pass::default());
        let weights = Tensor::<3>::from_data(inputs["weights"].clone(), device);
        let loss = (output.clone() * weights).sum();
        (output, loss)
    }
}

/// The gradient of a tensor, if it has one.
pub(crate) fn gradient(tensor: &AdapterTensor, gradients: &Gradients) -> Option<TensorData> {
    match tensor.param() {
        AnyParam::D1(param) => param.val().grad(gradients).map(Tensor::into_data),
        AnyParam::D2(param) => param.val().grad(gradients).map(Tensor::into_data),
        AnyParam::D3(param) => param.val().grad(gradients).map(Tensor::into_data),
        AnyParam::D4(param) => param.val().grad(gradients).map(Tensor::into_data),
    }
}

/// The gradients of the tensors of all adapters, by their keys in a file.
pub(crate) fn adapter_gradients(model: &impl Parts, gradients: &Gradients) -> Tensors {
    let mut found = Tensors::new();
    model.for_each_part(&mut |path, part| {
        for adapter in part.adapters().iter() {
            for tensor in &adapter.tensors {
                let key = format!("base_model.model.{path}.{}", tensor.name());
                found.extend(gradient(tensor, gradients).map(|gradient| (key, gradient)));
            }
        }
    });
    found
}

/// How many parameters of a model have a gradient.
pub(crate) fn count_gradients(model: &impl Module, gradients: &Gradients) -> usize {
    struct Count<'a>(&'a Gradients, usize);
    impl PathVisitor for Count<'_> {
        fn visit<const D: usize>(&mut self, _: &str, param: &burn::module::Param<Tensor<D>>) {
            self.1 += usize::from(param.val().grad(self.0).is_some());
        }
    }
    let mut count = Count(gradients, 0);
    visit_params(model, &mut count);
    count.1
}

fn agrees<M: Base>(base: &Path, case: &Path) {
    let name = case
        .strip_prefix(folder("methods"))
        .expect("a case")
        .display()
        .to_string();
    let device = Device::default().autodiff();
    let inputs = read_tensors(&base.join("inputs.safetensors")).expect("inputs");
    let golden = read_tensors(&case.join("golden.safetensors")).expect("golden");
    let close = |what: &str, found: &TensorData| {
        assert_close(&format!("{name}: {what}"), found, &golden[what], 1e-4);
    };
    let model = load_adapter(M::load(base, &device), case, "default", true);
    let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
    let (output, loss) = model.compute(&inputs, &device);
    close("output", &output.into_data());
    close("loss", &loss.to_data());

    let gradients = loss.backward();
    let found = adapter_gradients(&model, &gradients);
    for (key, gradient) in &found {
        close(&format!("grad.{key}"), gradient);
    }
    let expected = golden.keys().filter(|key| key.starts_with("grad.")).count();
    assert_eq!(found.len(), expected, "{name}");
    assert_eq!(
        count_gradients(&model, &gradients),
        expected,
        "{name}: gradients of the base"
    );

    let again = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", again.path()).expect("saves");
    assert_eq!(config(again.path()), config(case), "{name}");
    assert_eq!(saved_tensors(again.path()), saved_tensors(case), "{name}");

    if golden.contains_key("merged") {
        let merged =
            merge_and_unload(model.valid()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (output, _) = merged.compute(&inputs, &Device::default());
        close("merged", &output.into_data());
    }
}

/// The settings of an adapter without the version of PEFT; 8 and 8.0 are the same number.
pub(crate) fn config(folder: &Path) -> Value {
    fn floats(value: Value) -> Value {
        match value {
            Value::Number(number) => number.as_f64().into(),
            Value::Array(items) => items.into_iter().map(floats).collect(),
            Value::Object(items) => items.into_iter().map(|(k, v)| (k, floats(v))).collect(),
            other => other,
        }
    }
    floats(saved_settings(folder))
}

fn cases(base: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder("methods").join(base)).expect("golden files");
    let folders = entries.map(|entry| entry.expect("reads").path());
    let mut cases: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn all_agree<M: Base>(base: &str) {
    for case in cases(base) {
        agrees::<M>(&folder("methods").join(base), &case);
    }
}

#[test]
fn adapters_of_peft_on_llama_agree() {
    all_agree::<AutoCausalLm>("llama");
}

#[test]
fn adapters_of_peft_on_gpt2_agree() {
    all_agree::<AutoCausalLm>("gpt2");
}

#[test]
fn adapters_of_peft_on_bert_agree() {
    all_agree::<Bert>("bert");
}

/// Methods that other golden files are about: `golden/extras.py`, `bottleneck.py` and `prompts.py`.
const ELSEWHERE: [&str; 6] = [
    "BITFIT",
    "BOTTLENECK",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
    "TRAINABLE_TOKENS",
];

#[test]
fn every_method_has_a_golden_case() {
    let methods = peft_types()
        .into_iter()
        .filter(|name| !ELSEWHERE.contains(name));
    let methods: BTreeSet<String> = methods.map(String::from).collect();
    let seen = ["llama", "gpt2", "bert"].into_iter().flat_map(cases);
    let seen: BTreeSet<String> = seen
        .map(|case| {
            config(&case)["peft_type"]
                .as_str()
                .expect("a name")
                .to_string()
        })
        .collect();
    let missing: Vec<&String> = methods.difference(&seen).collect();
    assert!(
        missing.is_empty(),
        "no golden case for {missing:?}: see golden/methods.py"
    );
}

/// One copy of VeRA's matrices, however many layers use them: after loading, and in the count of parameters.
#[test]
fn layers_share_the_matrices_of_vera() {
    let base = folder("methods/llama");
    let model = AutoCausalLm::load(&base, &Device::default().autodiff());
    let (_, before) = trainable_parameters(&model);
    let model = load_adapter(model, &base.join("vera"), "default", true).expect("loads");
    let (mut ids, mut shared, mut own) = (BTreeSet::new(), 0, 0);
    model.for_each_linear(&mut |_, linear| {
        for tensor in linear.adapters.iter().flat_map(|adapter| &adapter.tensors) {
            let numbers = tensor.shape().num_elements();
            match tensor.param() {
                AnyParam::D2(param) if tensor.is_shared() && ids.insert(param.id) => {
                    shared += numbers
                }
                _ if !tensor.is_shared() => own += numbers,
                _ => {}
            }
        }
    });
    assert_eq!(ids.len(), 2);
    assert_eq!(trainable_parameters(&model), (own, before + own + shared));
}

/// Cases of `golden/gpt2_formulas.py`, which PEFT does not load.
const FORMULA: &str = "formula_";

/// A new adapter for the settings of each golden case, with what the model computes with it.
fn write_for_peft<M: Base>(base: &str, output: &Path) {
    let device = Device::default();
    let inputs =
        read_tensors(&folder("methods").join(base).join("inputs.safetensors")).expect("inputs");
    for case in cases(base) {
        let name = case.file_name().expect("a name").to_string_lossy();
        if name.starts_with(FORMULA) {
            continue;
        }
        let mut config = read_config(&case).expect("reads");
        // That of the model, as for a new adapter.
        config.common_mut().extra.remove("task_type");
        let model = M::load(&folder("methods").join(base), &device);
        let model = attach(model, &*config, "default", 1);
        let model = model.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let model = stirred(model, "default");
        let output = output.join(base).join(&*name);
        save_adapter(&model, "default", &output).expect("saves");
        write_output(&output, model.compute(&inputs, &device).0.into_data());
    }
}

fn write_output(folder: &Path, output: TensorData) {
    let computed = vec![("output".to_string(), output)];
    write_tensors(
        &folder.join("output.safetensors"),
        &computed,
        &HashMap::new(),
    )
    .expect("writes");
}

/// Prompts, and adapters that are combined from two.
fn write_prompts_and_combined(base: &str, output: &Path) {
    let device = Device::default();
    let folder = folder("methods").join(base);
    let inputs = read_tensors(&folder.join("inputs.safetensors")).expect("inputs");
    let plain = AutoCausalLm::load(&folder, &device);
    for (config, name) in configs(3)
        .iter()
        .zip(["prompt", "p_tuning", "prefix", "projected"])
    {
        let model = attach(plain.clone(), &**config, "default", 1).expect("attaches");
        let model = stirred(model, "default");
        let output = output.join(base).join(name);
        save_adapter(&model, "default", &output).expect("saves");
        write_output(&output, model.compute(&inputs, &device).0.into_data());
    }
    let kinds: [(&str, Box<dyn Method>); 2] = [
        ("combined_lora", Box::new(lora(3))),
        ("combined_ia3", Box::new(Ia3Config::default())),
    ];
    for (name, config) in kinds {
        let model = with_adapter(plain.clone(), &*config, "one");
        let model = with_adapter(model, &*config, "two");
        let both = [("one", 0.6), ("two", 0.7)];
        let model = combine(model, &both, name, &Combination::default()).expect("combines");
        let mut model = model;
        set_active(&mut model, &[name]).expect("known");
        let folder = save_adapter(&model, name, &output.join(base)).expect("saves");
        write_output(&folder, model.compute(&inputs, &device).0.into_data());
    }
}

/// Writes adapters of every method for PEFT, which computes with them what ft does.
#[test]
#[ignore = "writes folders for golden/into_peft.py to FT_WRITE_ADAPTERS"]
fn adapters_of_every_method_for_peft() {
    let output = std::env::var_os("FT_WRITE_ADAPTERS").expect("FT_WRITE_ADAPTERS names a folder");
    let output = PathBuf::from(output);
    write_for_peft::<AutoCausalLm>("llama", &output);
    write_for_peft::<AutoCausalLm>("gpt2", &output);
    write_for_peft::<Bert>("bert", &output);
    write_prompts_and_combined("llama", &output);
    write_prompts_and_combined("gpt2", &output);
}
