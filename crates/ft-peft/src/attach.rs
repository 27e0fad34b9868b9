//! A new adapter on a model: the base freezes, the adapter trains.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use ft_core::layers::Adapter;
use ft_core::{Part, Parts};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::beside::{self, Beside};
use crate::freeze::freeze_all;
use crate::method::{Draw, Features, Origin, Site, check_origin, validate};
use crate::switch::check_new;
use crate::targets::{Chosen, Layers};
use crate::task_type::set_task;
use crate::{Method, Result};

/// Attaches a new adapter called `name`, active and trainable, and freezes everything else.
///
/// `config` holds the settings of a method, such as [`LoraConfig`](crate::LoraConfig). They are kept in the model. PEFT
/// calls the first adapter `default`. A model with an active adapter is an error: an adapter trained on top of another one
/// works only together with it. Call [`merge_and_unload`](crate::merge_and_unload) first, or deactivate the other adapter;
/// [`set_active`](crate::set_active) can activate both afterwards. New numbers are drawn from `seed` on the host, so they
/// are the same on every device.
///
/// `task_type` of the file is that of the model's head, unless `common.extra` of the settings has one: null for a model without
/// head, of which PEFT then makes a plain `PeftModel`.
///
/// Layers that `modules_to_save` names and biases that `bias` chooses get trained copies under the same name, so that the
/// base stays as it is. In a model whose output layer is its embedding, naming one of them trains both.
///
/// # Errors
///
/// If the settings are wrong or do not fit the model, one of the names in them matches no layer, `name` is
/// taken, or another adapter is active.
pub fn attach<M: Module + Parts>(
    model: M,
    config: &dyn Method,
    name: &str,
    seed: u64,
) -> Result<M> {
    validate(config)?;
    check_origin(config, Origin::New)?;
    check_new(&model, name)?;
    let mut config = config.boxed();
    config.fit(&model)?;
    set_task(&mut *config, &model);
    let chosen = Layers::of(&model, config.as_ref()).select_strictly(&mut *config)?;
    beside::check(&model, &mut *config, &chosen)?;
    let mut model = freeze_all(model);
    put(
        &mut model,
        config.into(),
        &chosen,
        name,
        Numbers::Drawn(seed),
    )?;
    Ok(model)
}

/// Where the numbers of new adapters come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// They are drawn from this seed.
    Drawn(u64),
    /// They will be replaced with others, of which a tensor has at most so many. Until then they are zeros without memory.
    Stored { most: usize },
}

/// Puts new adapters on the chosen layers.
pub(crate) fn put(
    model: &mut impl Parts,
    method: Arc<dyn Method>,
    chosen: &Chosen,
    name: &str,
    numbers: Numbers,
) -> Result<()> {
    let beside = Beside::of(model, &*method, chosen);
    let (seed, stored) = match numbers {
        Numbers::Drawn(seed) => (seed, None),
        Numbers::Stored { most } => (0, Some(most)),
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut layers = Vec::new();
    let (mut device, mut of_layers) = (None, None);
    model.for_each_part(&mut |path, part| {
        let found = device_of(part);
        if chosen.contains(path) {
            layers.push(Features::of(part));
            of_layers = of_layers.take().or_else(|| found.clone());
        }
        device = device.take().or(found);
    });
    let settings: ft_core::layers::Settings = Arc::new(method.clone());
    let Some(device) = of_layers.or(device) else {
        return beside.put(model, name, &settings);
    };
    let mut draw = Draw {
        rng: &mut rng,
        device,
        stored,
    };
    let shared = method.shared(&layers, &mut draw)?;
    let mut failure = None;
    model.for_each_part_mut(&mut |path, mut part| {
        if failure.is_some() || !chosen.contains(path) {
            return;
        }
        draw.device = device_of(part.as_part()).unwrap_or_else(|| draw.device.clone());
        let site = Site {
            path,
            part: part.as_part(),
            shared: &shared,
            loaded: stored.is_some(),
        };
        match method.on(&site, &mut draw) {
            Ok(new) => {
                let settings = settings.clone();
                let adapter = Adapter::new(name, new.kind, new.tensors, new.dropout, settings);
                part.adapters().push(adapter);
            }
            Err(error) => failure = Some(error),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => beside.put(model, name, &settings),
    }
}

/// The device of a part; none if it has no parameters.
fn device_of(part: Part<'_>) -> Option<Device> {
    match part {
        Part::Linear(linear) => Some(linear.weight.lazy_device()),
        Part::Embedding(table) => Some(table.weight.lazy_device()),
        Part::RmsNorm(norm) => Some(norm.weight.lazy_device()),
        Part::LayerNorm(norm) => Some(norm.weight.lazy_device()),
        _ => None,
    }
}
