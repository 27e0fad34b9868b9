//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys are `base_model.model.<layer>.<tensor>`, and `base_model.<tensor>` of tensors that all layers share; the adapter's
//! name is not part of them. An adapter not called `default` lies in a subfolder of its name, as PEFT saves it. Weights of
//! the base can lie beside the adapter.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{FloatDType, TensorData};
use ft_core::layers::AdapterTensor;
use ft_core::safetensors_folder::{
    check_finite, read_tensors, write_file, write_json, write_tensors,
};
use ft_core::{Layout, Part, Parts, module_path};

use crate::adapter_config::{FILE as CONFIG, read_config, read_json, to_json};
use crate::adapter_hub;
use crate::attach::put;
use crate::freeze::freeze_all;
use crate::model_card::model_card;
use crate::stored_weights::{self, StoredWeights};
use crate::switch::{adapter_config, check_new};
use crate::targets::{Layers, kinds};
use crate::{BottleneckConfig, Error, Features, Method, Result, TargetModules};

const WEIGHTS: &str = "adapter_model.safetensors";
/// What old versions of PEFT wrote instead.
const PICKLED: &str = "adapter_model.bin";
/// The adapter that PEFT saves in the folder itself.
const DEFAULT: &str = "default";

/// What all keys begin with.
pub(crate) const PREFIX: &str = "base_model.model.";
/// What the keys of tensors that all layers share begin with.
const SHARED: &str = "base_model.";

fn key(path: &str, tensor: &AdapterTensor) -> String {
    match tensor.is_shared() {
        true => format!("{SHARED}{}", tensor.name()),
        false => format!("{PREFIX}{path}.{}", tensor.name()),
    }
}

/// Writes the adapter called `name` so that PEFT loads it, and returns the folder it lies in. Bottleneck adapters, which PEFT
/// does not have, are written so that AdapterHub's package loads them.
///
/// `all-linear` is written as the names of the layers, so that readers need not know the model to know the targets. Layers
/// that `modules_to_save` of its settings names are written with their present weights: embedding and output layer of a
/// model whose vocabulary was resized should be among them.
///
/// # Errors
///
/// If there is no adapter of this name, a name of `modules_to_save` is that of no layer, a number is not finite, or a file
/// cannot be written. Nothing is written unless all can be.
pub fn save_adapter<M: Module + Parts>(model: &M, name: &str, folder: &Path) -> Result<PathBuf> {
    let mut config = adapter_config(model, name)?.boxed();
    let hub = of_adapter_hub(&*config).cloned();
    let hub_key = adapter_hub::key_maker(model, name);
    let (mut tensors, mut layers) = (BTreeMap::new(), Vec::new());
    let (mut transposed, mut width) = (false, 0);
    model.for_each_part(&mut |path, part| {
        for adapter in part.adapters().iter().filter(|a| a.name == name) {
            transposed |= matches!(part, Part::Linear(linear) if linear.layout() == Layout::InOut);
            layers.push(path.to_string());
            width = Features::of(part).outputs;
            for tensor in adapter.tensors.iter().filter(|tensor| tensor.is_saved()) {
                let key = match hub {
                    Some(_) => hub_key(path, tensor.name()),
                    None => key(path, tensor),
                };
                tensors.entry(key).or_insert_with(|| tensor.data());
            }
        }
    });
    let common = config.common_mut();
    let all = common
        .target_modules
        .as_ref()
        .is_some_and(TargetModules::is_all_linear);
    if all && common.exclude_modules.is_none() {
        common.target_modules = Some(TargetModules::Names(kinds(&layers)));
    }
    tensors.extend(stored_weights::collect(model, common)?);
    for (key, data) in &tensors {
        check_finite(key, data, FloatDType::F32)?;
    }
    let folder = place(folder, name);
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let tensors: Vec<(String, TensorData)> = tensors.into_iter().collect();
    if let Some(config) = hub {
        write_tensors(&folder.join(adapter_hub::WEIGHTS), &tensors, &metadata)?;
        write_json(
            &folder.join(CONFIG),
            &adapter_hub::to_json(&config, name, width),
        )?;
        return Ok(folder);
    }
    write_tensors(&folder.join(WEIGHTS), &tensors, &metadata)?;
    write_json(&folder.join(CONFIG), &to_json(&*config, transposed))?;
    // An existing model card is kept.
    let readme = folder.join("README.md");
    if !readme.exists() {
        write_file(&readme, model_card(&*config).as_bytes())?;
    }
    Ok(folder)
}

/// The settings of an adapter that is saved in AdapterHub's form.
fn of_adapter_hub(method: &dyn Method) -> Option<&BottleneckConfig> {
    let method: &dyn Any = method;
    method.downcast_ref()
}

fn place(folder: &Path, name: &str) -> PathBuf {
    if name == DEFAULT {
        folder.to_path_buf()
    } else {
        folder.join(name)
    }
}

/// Attaches the adapter that lies in `folder` under `name`, switched on.
///
/// It trains if `trainable`, in which case everything else is frozen; else it is frozen,
/// and whatever trained before still does. An adapter not called `default` is looked for in the
/// subfolder of its name first, where PEFT and [`save_adapter`] put it, then in `folder` itself.
///
/// Weights of the base that lie beside the adapter take the place of the model's, also when the adapter is switched
/// off or removed: PEFT stores the base weight of an output layer with factors, embeddings that were resized, and what
/// `modules_to_save` names, which train again if `trainable`. An embedding with other rows resizes that of the model.
///
/// The model remembers the settings: [`adapter_config`] gives them.
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
    let config = read_config(folder)?;
    let json = read_json(folder)?;
    let stored_name =
        adapter_hub::is_of(&json).then(|| adapter_hub::name_of(&json).unwrap_or(name));
    let (weights, pickled, remedy) = match stored_name {
        None => (
            WEIGHTS,
            PICKLED,
            "from PEFT again, which writes adapter_model.safetensors",
        ),
        Some(_) => (
            adapter_hub::WEIGHTS,
            adapter_hub::PICKLED,
            "from AdapterHub's package again, with use_safetensors=True",
        ),
    };
    let path = folder.join(weights);
    if !path.is_file() && folder.join(pickled).is_file() {
        let reason = format!(
            "pickled weights are not read, since they can run code: save the adapter {remedy}"
        );
        return Err(ft_core::Error::invalid(&folder.join(pickled), reason).into());
    }
    let mut tensors = read_tensors(&path)?;
    let chosen = Layers::of(&model, &*config).select(config.common())?;
    let hub_key = stored_name.map(|name| adapter_hub::key_maker(&model, name));
    if let (Some(name), Some(key)) = (stored_name, &hub_key) {
        tensors = adapter_hub::rename(tensors, name, chosen.iter(), key);
    }
    let key = |path: &str, tensor: &AdapterTensor| match &hub_key {
        Some(key) => key(path, tensor.name()),
        None => key(path, tensor),
    };
    let shapes = module_path::shapes(&model).into_iter();
    let shapes = shapes.map(|(path, shape)| (path, shape.to_vec())).collect();
    let stored = StoredWeights::take(&model, &shapes, config.common(), &mut tensors, &path)?;
    let mut model = stored.put(model);
    put(&mut model, config.into(), &chosen, name, 0)?;
    fill(&mut model, name, tensors, &path, key)?;
    let mut model = match trainable {
        true => stored.train(freeze_all(model)),
        false => model,
    };
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut().filter(|a| a.name == name) {
            adapter.set_trainable(trainable);
        }
    });
    Ok(model)
}

/// Puts the tensors of the file into the new adapter; there have to be exactly its tensors.
fn fill(
    model: &mut impl Parts,
    name: &str,
    mut tensors: BTreeMap<String, TensorData>,
    path: &Path,
    key: impl Fn(&str, &AdapterTensor) -> String,
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
