//! What adapters a model has, as a table.

use std::collections::BTreeSet;
use std::fmt;

use ft_core::Parts;
use ft_core::layers::AdapterTensor;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::switch::{adapter_names, settings_of};
use crate::table::Table;

/// The adapters of a model. Displayed, it is a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Description(pub Vec<AdapterDescription>);

/// What an adapter is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterDescription {
    /// Its name.
    pub name: String,
    /// PEFT's name of its method; none if this crate did not attach it.
    pub method: Option<String>,
    /// Whether it takes part in the forward pass.
    pub active: bool,
    /// How many layers it is on.
    pub layers: usize,
    /// The ranks that its settings give, in ascending order; empty for methods without.
    pub ranks: Vec<u64>,
    /// How many numbers its file has; what is made again when it is loaded does not count.
    pub parameters: usize,
    /// How many of them train now.
    pub trainable_parameters: usize,
    /// The size of its tensors in a file, in bytes.
    pub bytes: usize,
    /// The settings of its method.
    pub settings: Map<String, Value>,
}

/// Describes the adapters of a model, in the order of attachment.
pub fn describe(model: &impl Parts) -> Description {
    let names = adapter_names(model).into_iter();
    Description(names.map(|name| one(model, name)).collect())
}

fn one(model: &impl Parts, name: String) -> AdapterDescription {
    let mut found = AdapterDescription {
        name,
        method: None,
        active: false,
        layers: 0,
        ranks: Vec::new(),
        parameters: 0,
        trainable_parameters: 0,
        bytes: 0,
        settings: Map::new(),
    };
    let (mut layers, mut shared) = (BTreeSet::new(), BTreeSet::new());
    model.for_each_part(&mut |path, part| {
        let adapters = part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == found.name);
        for adapter in adapters {
            layers.insert(path.to_string());
            found.active |= adapter.active;
            if let (None, Some(method)) = (&found.method, settings_of(adapter)) {
                found.method = Some(method.peft_type().to_string());
                found.settings = method.own();
            }
            let own = adapter.tensors.iter().filter(|tensor| tensor.is_saved());
            let saved: Vec<AdapterTensor> = match settings_of(adapter) {
                Some(method) => method.saved(adapter),
                None => own.cloned().collect(),
            };
            for tensor in &saved {
                if !tensor.is_shared() || shared.insert(tensor.name().to_string()) {
                    found.parameters += tensor.shape().num_elements();
                }
            }
            // Tensors that are shared never train.
            let trained = adapter
                .tensors
                .iter()
                .filter(|tensor| tensor.is_trainable());
            found.trainable_parameters += trained
                .map(|tensor| tensor.shape().num_elements())
                .sum::<usize>();
        }
    });
    // Files of adapters hold f32.
    found.bytes = 4 * found.parameters;
    found.layers = layers.len();
    found.ranks = ranks(&found.settings);
    found
}

/// The rank and those of layers that differ. AdaLoRA has another name for its rank, and flags of the ranks that a layer kept.
fn ranks(settings: &Map<String, Value>) -> Vec<u64> {
    let kept = |flags: &Vec<Value>| flags.iter().filter(|flag| **flag == true).count() as u64;
    let of = |value: &Value| value.as_u64().or_else(|| value.as_array().map(kept));
    let differing = settings.get("rank_pattern").and_then(Value::as_object);
    let differing: Vec<&Value> = differing.into_iter().flat_map(Map::values).collect();
    let first = match settings.get("init_r") {
        Some(_) if !differing.is_empty() => None,
        Some(first) => Some(first),
        None => settings.get("r"),
    };
    let all: BTreeSet<u64> = first.into_iter().chain(differing).filter_map(of).collect();
    all.into_iter().filter(|rank| *rank > 0).collect()
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "name",
            "method",
            "active",
            "layers",
            "rank",
            "parameters",
            "trained",
            "size",
        ]);
        for one in &self.0 {
            let ranks = one.ranks.iter().map(u64::to_string).collect::<Vec<_>>();
            table.row([
                one.name.clone(),
                one.method.clone().unwrap_or_default(),
                if one.active { "yes" } else { "no" }.to_string(),
                one.layers.to_string(),
                ranks.join(", "),
                one.parameters.to_string(),
                one.trainable_parameters.to_string(),
                format!("{:.2} MB", one.bytes as f64 / 1e6),
            ]);
        }
        table.fmt(f)
    }
}
