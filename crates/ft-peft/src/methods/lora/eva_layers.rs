//! The inputs of layers on batches of data, their principal components, and the ranks that layers get.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use ft_core::layers::{Adapter, AdapterKind, At};
use ft_core::{Parts, TokenBatch};

use super::incremental_pca::IncrementalPca;
use super::{EvaConfig, LoraConfig};
use crate::linalg::Matrix;
use crate::targets::Chosen;
use crate::{Error, Result};

/// After so many batches the components of any data that has them have converged.
const BATCHES: usize = 1000;

/// A layer whose inputs are recorded.
pub(super) struct Layer {
    pub(super) path: String,
    /// The rank that the settings give it.
    pub(super) wanted: usize,
    /// The rank that it gets.
    pub(super) rank: usize,
    recorder: Arc<Recorder>,
    /// The number of the first layer with the same input, which may be this one.
    same_as: usize,
    pca: IncrementalPca,
}

impl Layer {
    fn is_known(&self, tau: f64) -> bool {
        let agreement = self.pca.agreement.iter().take(self.rank);
        agreement.into_iter().all(|cosine| *cosine >= tau)
    }
}

/// Keeps the input of a layer.
#[derive(Debug, Default)]
struct Recorder(Mutex<Option<Tensor<2>>>);

impl Recorder {
    fn inputs(&self) -> Option<Tensor<2>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl AdapterKind for Recorder {
    fn input(&self, _: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(x.clone().inner());
        None
    }
}

/// Puts recorders on the chosen layers.
pub(super) fn record(
    model: &mut impl Parts,
    chosen: &Chosen,
    config: &LoraConfig,
    rho: f64,
) -> Vec<Layer> {
    let mut layers = Vec::new();
    model.for_each_linear_mut(&mut |path, linear| {
        if !chosen.contains(path) {
            return;
        }
        let wanted = config.rank_of(path);
        let most = (wanted as f64 * rho)
            .round()
            .min(linear.in_features() as f64) as usize;
        let recorder = Arc::new(Recorder::default());
        let adapter = Adapter::new("recorder", recorder.clone(), Vec::new(), 0.0, Arc::new(()));
        linear.adapters.push(adapter);
        layers.push(Layer {
            path: path.to_string(),
            wanted,
            rank: most,
            recorder,
            same_as: layers.len(),
            pca: IncrementalPca::new(most),
        });
    });
    layers
}

/// Computes the batches until the components of all layers have converged, and distributes the ranks.
pub(super) fn find_components(
    layers: &mut [Layer],
    eva: &EvaConfig,
    batches: &[(TokenBatch, Vec<i64>)],
    run: impl Fn(&TokenBatch),
) -> Result<()> {
    if batches.is_empty() {
        return Err(Error::Settings(
            "init_lora_weights = eva needs at least one batch".into(),
        ));
    }
    for (step, (tokens, labels)) in batches.iter().cycle().enumerate() {
        let unknown: Vec<usize> = (0..layers.len())
            .filter(|&i| layers[i].same_as == i && !layers[i].is_known(eva.tau))
            .collect();
        let Some(&first) = unknown.first() else {
            return Ok(());
        };
        let skipped = step >= batches.len() && layers[first].pca.found().is_none();
        if step == BATCHES || skipped {
            let layer = &layers[first];
            return Err(Error::Settings(format!(
                "init_lora_weights = eva: the {} components of the input of {} have not converged after {step} batches: give \
                 larger batches, of more tokens that count than components, or lower r, rho or tau",
                layer.pca.count(),
                layer.path
            )));
        }
        run(tokens);
        if step == 0 {
            find_same(layers);
        }
        let rows = counted(tokens, labels, eva);
        for i in unknown {
            let inputs = layers[i].recorder.inputs();
            let first = layers[i].same_as == i;
            if let Some(inputs) = inputs.filter(|_| first) {
                let rows = Tensor::from_data(rows.clone(), &inputs.device());
                layers[i].pca.add(&Matrix::of(inputs.select(0, rows)));
            }
        }
        let all_begun = layers
            .iter()
            .all(|layer| layers[layer.same_as].pca.found().is_some());
        if all_begun {
            share_out(layers);
        }
    }
    Ok(())
}

/// The places of the tokens that count.
fn counted(tokens: &TokenBatch, labels: &[i64], eva: &EvaConfig) -> TensorData {
    let [batch, seq] = tokens.input_ids.dims();
    assert_eq!(labels.len(), batch * seq, "a label for each token");
    let segments = tokens.segment_ids.as_ref();
    let segments: Option<Vec<i64>> = segments.map(|ids| ids.to_data().iter::<i64>().collect());
    let is_padding = |place: usize| {
        segments
            .as_ref()
            .is_some_and(|segments| segments[place] == 0)
    };
    let counts = |place: usize| match eva.use_label_mask {
        true => labels[place] != eva.label_mask_value,
        false => true,
    };
    let places = (0..labels.len()).filter(|place| counts(*place) && !is_padding(*place));
    let places: Vec<i64> = places.map(|place| place as i64).collect();
    let count = places.len();
    TensorData::new(places, [count])
}

/// Layers with the same input share its components.
fn find_same(layers: &mut [Layer]) {
    let inputs: Vec<_> = layers.iter().map(|layer| layer.recorder.inputs()).collect();
    for i in 0..layers.len() {
        let same = (0..i).find(|&j| match (&inputs[j], &inputs[i]) {
            (Some(a), Some(b)) => ft_kernels::is_same(a, b),
            _ => false,
        });
        let Some(first) = same else { continue };
        layers[i].same_as = first;
        let most = layers[i].pca.count().max(layers[first].pca.count());
        for layer in [i, first] {
            layers[layer].pca = IncrementalPca::new(most);
            layers[layer].rank = most;
        }
    }
}

/// Distributes the sum of all ranks to the components that explain most of their layer's input.
fn share_out(layers: &mut [Layer]) {
    let budget: usize = layers.iter().map(|layer| layer.wanted).sum();
    let mut shares = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let explained = layers[layer.same_as].pca.explained();
        shares.extend(explained.into_iter().map(|share| (share, number)));
    }
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    layers.iter_mut().for_each(|layer| layer.rank = 0);
    for (_, number) in shares.into_iter().take(budget) {
        layers[number].rank += 1;
    }
    // The layer whose components are followed has the highest rank of those that share them.
    for i in 0..layers.len() {
        let first = layers[i].same_as;
        if layers[first].rank < layers[i].rank {
            let rank = layers[first].rank;
            layers[first].rank = layers[i].rank;
            layers[i].rank = rank;
        }
    }
}

/// `A` of the layer of this number.
pub(super) fn components(layers: &[Layer], number: usize, whiten: bool) -> TensorData {
    let layer = &layers[number];
    let found = layers[layer.same_as].pca.found();
    let found = found.unwrap_or_else(|| unreachable!("ranks were shared out"));
    let rows = found.right.clone().first(layer.rank);
    let rows = match whiten {
        true => rows.rows_scaled(
            found
                .values
                .iter()
                .take(layer.rank)
                .map(|value| 1.0 / value.sqrt()),
        ),
        false => rows,
    };
    let numbers: Vec<f32> = rows.all_rows().flatten().map(|x| *x as f32).collect();
    TensorData::new(numbers, [rows.rows(), rows.cols()])
}
