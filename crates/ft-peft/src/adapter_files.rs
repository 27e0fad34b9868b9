//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys are `base_model.model.<layer>.<tensor>`, `base_model.<tensor>` of tensors that all layers share, and the name alone
//! of virtual tokens; the adapter's name is not part of them. An adapter not called `default` is in a subfolder of its name,
//! as PEFT saves it. Weights of the base can be stored beside the adapter.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, FloatDType, TensorData};
use ft_core::layers::AdapterTensor;
use ft_core::safetensors_folder::{check_finite, read_tensors, write_file, write_tensors_and_json};
use ft_core::{Layout, Part, Parts, module_path};

use crate::adapter_config::{FILE as CONFIG, read_config, read_json, to_json};
use crate::adapter_hub;
use crate::attach::{Numbers, put};
use crate::beside::{Beside, modules_for_peft, modules_of_peft};
use crate::freeze::freeze_all;
use crate::method::{Origin, check_origin};
use crate::methods::{TOKENS_DELTA, into_plain_lora, saved_as_plain};
use crate::model_card::{ModelCard, WRITTEN};
use crate::stored_weights::StoredWeights;
use crate::switch::{adapter_config, check_new};
use crate::targets::{Layers, kinds};
use crate::vocabulary::Vocabulary;
use crate::{BottleneckConfig, Error, Method, Result, TargetModules};

const WEIGHTS: &str = "adapter_model.safetensors";
/// What old versions of PEFT wrote instead.
const PICKLED: &str = "adapter_model.bin";
/// The adapter that PEFT saves in the folder itself.
const DEFAULT: &str = "default";

/// What all keys begin with.
pub(crate) const PREFIX: &str = "base_model.model.";
/// Tensors of a tied embedding that are written under the name of the output layer too.
const TWICE: [&str; 2] = ["weight", TOKENS_DELTA];
/// What the keys of tensors that all layers share begin with.
const SHARED: &str = "base_model.";

fn key(path: &str, tensor: &AdapterTensor) -> String {
    match (tensor.is_unprefixed(), tensor.is_shared()) {
        (true, _) => tensor.name().to_string(),
        (_, true) => format!("{SHARED}{}", tensor.name()),
        _ => format!("{PREFIX}{path}.{}", tensor.name()),
    }
}

/// Writes the adapter called `name` so that PEFT loads it, and returns its folder. Bottleneck adapters, which PEFT does not
/// have, are written so that AdapterHub's package loads them.
///
/// `all-linear` is written as the names of the layers, so that the targets can be read without the model. An adapter of a
/// model whose vocabulary was resized should have embedding and output layer among `modules_to_save`: its file then has the
/// new rows. A model card (`README.md`) of this crate in the folder is written again, one without its last line stays. LoRA that began with `pissa_niter_N` is written as plain LoRA: see [`into_plain_lora`](crate::into_plain_lora).
///
/// # Errors
///
/// If there is no adapter of this name, a number is not finite, or a file cannot be written. Nothing is written unless all can be.
pub fn save_adapter<M: Module + Parts>(model: &M, name: &str, folder: &Path) -> Result<PathBuf> {
    save(model, name, folder, None)
}

/// The same with a model card about data and training. It replaces an existing card.
///
/// # Errors
///
/// As [`save_adapter`].
pub fn save_adapter_with_card<M: Module + Parts>(
    model: &M,
    name: &str,
    folder: &Path,
    card: &ModelCard,
) -> Result<PathBuf> {
    save(model, name, folder, Some(card))
}

fn save<M: Module + Parts>(
    model: &M,
    name: &str,
    folder: &Path,
    card: Option<&ModelCard>,
) -> Result<PathBuf> {
    let mut config = adapter_config(model, name)?.boxed();
    if saved_as_plain(&*config) {
        return save(&into_plain_lora(model.clone(), name)?, name, folder, card);
    }
    let method: &dyn Any = &*config;
    if let Some(config) = method.downcast_ref::<BottleneckConfig>() {
        let folder = adapter_hub::save(model, config, name, &place(folder, name))?;
        write_card(&folder, card, config)?;
        return Ok(folder);
    }
    let vocabulary = Vocabulary::of(model);
    let mut tensors = BTreeMap::new();
    let mut transposed = false;
    model.for_each_part(&mut |path, part| {
        for adapter in part.adapters().iter().filter(|a| a.name == name) {
            transposed |= matches!(part, Part::Linear(linear) if linear.layout() == Layout::InOut);
            for tensor in &config.saved(adapter) {
                // As in PEFT, tensors that train in a tied embedding are written under the name of the output layer too.
                if vocabulary.is_tied(path) && TWICE.contains(&tensor.name()) {
                    tensors.insert(key(vocabulary.output, tensor), tensor.data());
                }
                tensors
                    .entry(key(path, tensor))
                    .or_insert_with(|| tensor.data());
            }
        }
    });
    let common = config.common();
    let all = common
        .target_modules
        .as_ref()
        .is_some_and(TargetModules::is_all_linear);
    if all && common.exclude_modules.is_none() {
        let chosen = Layers::of(model, &*config).select(common)?;
        config.common_mut().target_modules = Some(TargetModules::Names(kinds(&chosen)));
    }
    config.common_mut().modules_to_save = modules_for_peft(model, config.common());
    for (key, data) in &tensors {
        check_finite(key, data, FloatDType::F32)?;
    }
    let folder = place(folder, name);
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let tensors: Vec<(String, TensorData)> = tensors.into_iter().collect();
    write_tensors_and_json(
        &folder.join(WEIGHTS),
        &tensors,
        &metadata,
        &folder.join(CONFIG),
        &to_json(&*config, transposed),
    )?;
    write_card(&folder, card, &*config)?;
    Ok(folder)
}

/// Writes the model card. Without a new one an existing card is kept if a person wrote or changed it, by the line at its end.
fn write_card(folder: &Path, card: Option<&ModelCard>, method: &dyn Method) -> Result<()> {
    let readme = folder.join("README.md");
    let own = || std::fs::read_to_string(&readme).is_ok_and(|text| text.contains(WRITTEN));
    if card.is_some() || !readme.exists() || own() {
        let card = card.cloned().unwrap_or_default();
        write_file(&readme, card.text(method).as_bytes())?;
    }
    Ok(())
}

fn place(folder: &Path, name: &str) -> PathBuf {
    if name == DEFAULT {
        folder.to_path_buf()
    } else {
        folder.join(name)
    }
}

/// The folder of an adapter of this name.
pub(crate) fn adapter_folder(folder: &Path, name: &str) -> PathBuf {
    let own = place(folder, name);
    match own.join(CONFIG).is_file() {
        true => own,
        false => folder.to_path_buf(),
    }
}

/// Attaches the adapter called `name` that is saved in `folder`, switched on.
///
/// If `trainable`, it trains and everything else is frozen. Otherwise it is frozen, and what trained before still trains. An
/// adapter not called `default` is looked for in the subfolder of its name first, where PEFT and [`save_adapter`] put it,
/// then in `folder` itself.
///
/// Weights of the base that are stored beside the adapter replace the model's. They stay when the adapter is switched off or
/// removed: PEFT stores the base weight of an output layer with factors, and embeddings that were resized. An embedding with
/// other rows resizes that of the model. What `modules_to_save` names is part of the adapter.
///
/// The settings are kept in the model: [`adapter_config`] returns them.
///
/// # Errors
///
/// If a file is missing or broken, a setting is not supported, a layer is missing, left over or of another shape, the name
/// is taken, or another adapter is active. [`Error::Tied`] if the adapter needs an output layer that is not the model's
/// embedding.
pub fn load_adapter<M: Module + Parts>(
    model: M,
    folder: &Path,
    name: &str,
    trainable: bool,
) -> Result<M> {
    check_new(&model, name)?;
    let folder = &adapter_folder(folder, name);
    let json = read_json(folder)?;
    if adapter_hub::is_of(&json) {
        let model = adapter_hub::load(model, &json, name, folder)?;
        return Ok(finish(model, name, trainable));
    }
    let mut config = read_config(folder)?;
    check_origin(&*config, Origin::File)?;
    config.fit(&model)?;
    config.common_mut().modules_to_save = modules_of_peft(&model, config.common());
    let path = folder.join(WEIGHTS);
    if !path.is_file() && folder.join(PICKLED).is_file() {
        return Err(ft_core::Error::invalid(
            &folder.join(PICKLED),
            "pickled weights are not read, since they can run code: save the adapter from PEFT \
             again, which writes adapter_model.safetensors",
        )
        .into());
    }
    let mut tensors = read_numbers(&path)?;
    let most = largest(&tensors);
    let chosen = Layers::of(&model, &*config).select(config.common())?;
    let shapes = module_path::shapes(&model).into_iter();
    // A file has no tensors of other adapters.
    let shapes = shapes.filter(|(path, _)| !path.contains(".adapters."));
    let shapes = shapes.map(|(path, shape)| (path, shape.to_vec())).collect();
    let beside = Beside::of(&model, &*config, &chosen);
    let stored = StoredWeights::take(
        &model,
        &shapes,
        config.common(),
        &beside,
        &mut tensors,
        &path,
    )?;
    let mut model = stored.put(model);
    put(
        &mut model,
        config.into(),
        &chosen,
        name,
        Numbers::Stored { most },
    )?;
    fill(&mut model, name, tensors, &path)?;
    Ok(finish(model, name, trainable))
}

/// The tensors of an adapter's file.
///
/// # Errors
///
/// If it cannot be read, or one of them has other numbers than finite floats.
pub(crate) fn read_numbers(path: &Path) -> Result<BTreeMap<String, TensorData>> {
    let tensors = read_tensors(path)?;
    for (key, data) in &tensors {
        if data.dtype() != DType::F32 {
            let reason = format!(
                "{key} has integers, and tensors of adapters have floating-point numbers: the file is of something else, or \
                 was quantized"
            );
            return Err(ft_core::Error::invalid(path, reason).into());
        }
        check_finite(key, data, FloatDType::F32)
            .map_err(|error| ft_core::Error::invalid(path, error.to_string()))?;
    }
    Ok(tensors)
}

/// How many numbers the largest of these tensors has.
pub(crate) fn largest(tensors: &BTreeMap<String, TensorData>) -> usize {
    let counts = tensors.values().map(|data| data.shape().num_elements());
    counts.max().unwrap_or(0)
}

/// Makes the new adapter the only part that trains, or freezes it.
fn finish<M: Module + Parts>(model: M, name: &str, trainable: bool) -> M {
    let mut model = match trainable {
        true => freeze_all(model),
        false => model,
    };
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut().filter(|a| a.name == name) {
            adapter.set_trainable(trainable);
        }
    });
    model
}

/// Puts the tensors of the file into the new adapter; there have to be exactly its tensors.
fn fill(
    model: &mut impl Parts,
    name: &str,
    mut tensors: BTreeMap<String, TensorData>,
    path: &Path,
) -> Result<()> {
    let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut shared: BTreeMap<String, AdapterTensor> = BTreeMap::new();
    model.for_each_part_mut(&mut |layer, mut part| {
        for adapter in part.adapters().iter_mut().filter(|a| a.name == name) {
            for tensor in adapter
                .tensors
                .iter_mut()
                .filter(|tensor| tensor.is_saved())
            {
                let key = key(layer, tensor);
                match tensors.get(&key) {
                    None => missing.push(key.clone()),
                    Some(data) if data.shape()[..] != tensor.shape()[..] => {
                        misshapen.push(format!(
                            "{key} (model {:?}, file {:?})",
                            &tensor.shape()[..],
                            &data.shape()[..]
                        ))
                    }
                    Some(_) if shared.contains_key(&key) => *tensor = shared[&key].clone(),
                    Some(data) => {
                        tensor.set(data.clone());
                        if tensor.is_shared() {
                            shared.insert(key.clone(), tensor.clone());
                        }
                    }
                }
                used.insert(key);
            }
        }
    });
    tensors.retain(|key, _| !used.contains(key));
    let left_over = tensors.into_keys().collect();
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
