//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys are `base_model.model.<layer>.lora_A.weight` (`[r, in]`) and `.lora_B.weight` (`[out, r]`);
//! the adapter's name is not part of them. An adapter not called `default` lies in a subfolder of
//! its name, as PEFT saves it. Weights of the base can lie beside the factors.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor, TensorData};
use ft_core::safetensors_folder::{
    check_finite, read_tensors, write_file, write_json, write_tensors,
};
use ft_core::{Layout, Lora, Parts, module_path};

use crate::adapter_config::FILE as CONFIG;
use crate::freeze::freeze_all;
use crate::stored_weights::{self, StoredWeights};
use crate::switch::{check_known, check_new};
use crate::{Error, LoraConfig, Result, TargetModules, targets};

const WEIGHTS: &str = "adapter_model.safetensors";
/// What old versions of PEFT wrote instead.
const PICKLED: &str = "adapter_model.bin";
/// The adapter that PEFT saves in the folder itself.
const DEFAULT: &str = "default";

/// What all keys begin with.
pub(crate) const PREFIX: &str = "base_model.model.";

fn key(path: &str, factor: &str) -> String {
    format!("{PREFIX}{path}.lora_{factor}.weight")
}

/// Writes the adapter called `name` so that PEFT loads it, and returns the folder it lies in.
///
/// `config` should be that of [`attach`](crate::attach); `all-linear` is written as the names of
/// the layers, so that readers need not know the model to know the targets. Layers that its
/// `modules_to_save` names are written with their present weights: embedding and output layer of a model whose
/// vocabulary was resized should be among them.
///
/// # Errors
///
/// If there is no adapter of this name, it is not the one that `config` describes (other layers,
/// ranks or scales), a name of `modules_to_save` is that of no layer, a number is not finite, or a file cannot be
/// written. Nothing is written unless all can be.
pub fn save_adapter<M: Module + Parts>(
    model: &M,
    config: &LoraConfig,
    name: &str,
    folder: &Path,
) -> Result<PathBuf> {
    check_known(model, &[name])?;
    config.validate()?;
    let chosen = targets::select(&targets::paths(model), model.output_layer(), config)?;
    let (mut tensors, mut layers) = (Vec::new(), Vec::new());
    let mut transposed = false;
    let mut mistake = None;
    model.for_each_linear(&mut |path, linear| {
        let Some(adapter) = linear.adapters.iter().find(|a| a.name == name) else {
            return;
        };
        if adapter.rank() != config.rank_of(path)
            || (adapter.scaling - config.scaling_of(path)).abs() > 1e-9 * adapter.scaling.abs()
        {
            mistake = Some(format!(
                "{path} has rank {} and scale {}, the settings say {} and {}",
                adapter.rank(),
                adapter.scaling,
                config.rank_of(path),
                config.scaling_of(path)
            ));
        }
        transposed |= linear.layout() == Layout::InOut;
        tensors.push((key(path, "A"), adapter.lora_a.val().into_data()));
        tensors.push((key(path, "B"), adapter.lora_b.val().into_data()));
        layers.push(path.to_string());
    });
    if let Some(layer) = chosen.iter().find(|layer| !layers.contains(layer)) {
        mistake = Some(format!("{layer} has no factors, the settings target it"));
    }
    if let Some(layer) = layers.iter().find(|layer| !chosen.contains(layer)) {
        mistake = Some(format!(
            "{layer} has factors, the settings do not target it"
        ));
    }
    if let Some(mistake) = mistake {
        return Err(Error::Settings(format!(
            "they are not those of adapter {name:?}: {mistake}; save it with the settings that it \
             was attached with"
        )));
    }
    let mut config = config.clone();
    if config.target_modules == TargetModules::all_linear() && config.exclude_modules.is_none() {
        config.target_modules = TargetModules::Names(targets::kinds(&layers));
    }
    tensors.extend(stored_weights::collect(model, &mut config)?);
    for (key, data) in &tensors {
        check_finite(key, data, FloatDType::F32)?;
    }
    let folder = place(folder, name);
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(&folder.join(WEIGHTS), &tensors, &metadata)?;
    write_json(&folder.join(CONFIG), &config.to_json(transposed))?;
    // An existing model card is kept.
    let readme = folder.join("README.md");
    if !readme.exists() {
        write_file(&readme, card(&config).as_bytes())?;
    }
    Ok(folder)
}

fn place(folder: &Path, name: &str) -> PathBuf {
    if name == DEFAULT {
        folder.to_path_buf()
    } else {
        folder.join(name)
    }
}

fn card(config: &LoraConfig) -> String {
    let base = config.base_model_name_or_path.as_deref().unwrap_or("");
    let front = if base.is_empty() {
        String::new()
    } else {
        format!("base_model: {}\n", serde_json::Value::from(base))
    };
    format!(
        "---\n{front}library_name: peft\ntags:\n- lora\n---\n\n# LoRA adapter\n\nRank {}, alpha {}, \
         {}, trained with ft. Load it with PEFT's `PeftModel.from_pretrained(base, folder)`, or \
         with `ft_peft::load_adapter`.\n",
        config.r,
        config.lora_alpha,
        if config.use_rslora {
            "rank-stabilised"
        } else {
            "scaled by alpha / r"
        }
    )
}

/// Attaches the adapter that lies in `folder` under `name`, switched on.
///
/// Its factors train if `trainable`, in which case everything else is frozen; else they are frozen,
/// and whatever trained before still does. An adapter not called `default` is looked for in the
/// subfolder of its name first, where PEFT and [`save_adapter`] put it, then in `folder` itself.
///
/// Weights of the base that lie beside the factors take the place of the model's, also when the adapter is switched
/// off or removed: PEFT stores the base weight of an output layer with factors, embeddings that were resized, and what
/// `modules_to_save` names, which train again if `trainable`. An embedding with other rows resizes that of the model.
///
/// [`LoraConfig::from_pretrained`] gives the settings, to save it again.
///
/// # Errors
///
/// If a file is missing or broken, the configuration asks for what is not supported, a layer is
/// missing, left over or of another shape, the name is taken, or another adapter is active.
/// [`Error::Tied`] if the adapter needs an output layer that is not the model's embedding.
pub fn load_adapter<M: Module + Parts>(
    model: M,
    folder: &Path,
    name: &str,
    trainable: bool,
) -> Result<M> {
    check_new(&model, name)?;
    let own = place(folder, name);
    let folder = if own.join(CONFIG).is_file() {
        &own
    } else {
        folder
    };
    let config = LoraConfig::from_pretrained(folder)?;
    let path = folder.join(WEIGHTS);
    if !path.is_file() && folder.join(PICKLED).is_file() {
        return Err(ft_core::Error::invalid(
            &folder.join(PICKLED),
            "pickled weights are not read, since they can run code: save the adapter from PEFT \
             again, which writes adapter_model.safetensors",
        )
        .into());
    }
    let mut tensors = read_tensors(&path)?;
    let chosen = targets::select(&targets::paths(&model), model.output_layer(), &config)?;
    let shapes = module_path::shapes(&model).into_iter();
    let shapes = shapes.map(|(path, shape)| (path, shape.to_vec())).collect();
    let stored = StoredWeights::take(&model, &shapes, &config, &mut tensors, &path)?;
    let model = stored.put(model);
    check(&model, &config, &chosen, &tensors, &path)?;

    let mut model = match trainable {
        true => stored.train(freeze_all(model)),
        false => model,
    };
    model.for_each_linear_mut(&mut |layer, linear| {
        let (a, b) = (key(layer, "A"), key(layer, "B"));
        let (Some(a), Some(b)) = (tensors.remove(&a), tensors.remove(&b)) else {
            return;
        };
        let device = linear.weight.lazy_device();
        let factor = |data| Tensor::from_data(data, &device);
        let mut adapter = Lora::new(
            name,
            factor(a),
            factor(b),
            config.scaling_of(layer),
            config.lora_dropout,
        );
        if !trainable {
            adapter = adapter.freeze();
        }
        linear.adapters.push(adapter);
    });
    Ok(model)
}

/// Compares the factors in the file with the layers that should have some.
fn check(
    model: &impl Parts,
    config: &LoraConfig,
    chosen: &[String],
    tensors: &BTreeMap<String, TensorData>,
    path: &Path,
) -> Result<()> {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    model.for_each_linear(&mut |layer, linear| {
        if !chosen.iter().any(|chosen| chosen == layer) {
            return;
        }
        let r = config.rank_of(layer);
        for (factor, shape) in [
            ("A", [r, linear.in_features()]),
            ("B", [linear.out_features(), r]),
        ] {
            let key = key(layer, factor);
            match tensors.get(&key) {
                None => missing.push(key.clone()),
                Some(data) if data.shape()[..] != shape => misshapen.push(format!(
                    "{key} (model {shape:?}, file {:?})",
                    &data.shape()[..]
                )),
                Some(_) => {}
            }
            known.push(key);
        }
    });
    let left_over: Vec<String> = tensors
        .keys()
        .filter(|key| !known.contains(key))
        .cloned()
        .collect();
    match unfit(path, missing, left_over, misshapen) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The error that lists these keys, unless there are none.
pub(crate) fn unfit(
    path: &Path,
    missing: Vec<String>,
    left_over: Vec<String>,
    misshapen: Vec<String>,
) -> Option<Error> {
    let mut detail = String::new();
    for (what, keys) in [
        ("missing", missing),
        ("left over", left_over),
        ("of another shape", misshapen),
    ] {
        if !keys.is_empty() {
            let shown = keys[..keys.len().min(12)].join(", ");
            let more = if keys.len() > 12 { ", ..." } else { "" };
            detail.push_str(&format!("\n  {what} ({}): {shown}{more}", keys.len()));
        }
    }
    (!detail.is_empty()).then(|| Error::Factors {
        path: path.to_path_buf(),
        detail,
    })
}
