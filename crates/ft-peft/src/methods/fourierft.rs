//! FourierFT: Parameter-Efficient Fine-Tuning with Discrete Fourier Transform (Gao et al., 2024, arXiv:2405.03003,
//! equations 2 to 4): `ΔW = α·Re(F⁻¹(S))`, where the spectrum `S` has `n` numbers at random places, the same for all layers
//! of a size, and zeros.
//!
//! With `N×M` numbers, `Re(F⁻¹(S))[u, v] = Σ cₖ cos(2π(aₖu/N + bₖv/M)) / NM`. By the addition theorem this is a product
//! of a matrix of cosines and sines, one of coefficients, and one of cosines and sines, where a frequency and its mirror
//! image share their rows. The matrices of cosines and sines are constants that the layers of a size share.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, Merged};
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Features, Method, NewAdapter, Site, method};
use crate::pattern::exception;
use crate::torch_random::TorchRandom;
use crate::{Common, Error, Pattern, Result};

/// Settings of a FourierFT adapter (Gao et al., 2024, arXiv:2405.03003).
///
/// The defaults are PEFT's: without `target_modules` it is put on queries and values, and it does not begin as no change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FourierFtConfig {
    /// How many numbers of the spectrum of a layer train.
    pub n_frequency: usize,
    /// The change is multiplied by this.
    pub scaling: f64,
    /// Seed of the places of these numbers, which are those of PyTorch.
    pub random_loc_seed: u64,
    /// Whether the spectrum begins with zeros, so that the adapter begins as no change; if not, it is random.
    pub init_weights: bool,
    /// Values of `n_frequency` of layers that differ.
    #[serde(with = "crate::pattern")]
    pub n_frequency_pattern: Pattern<usize>,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for FourierFtConfig {
    fn default() -> Self {
        Self {
            n_frequency: 1000,
            scaling: 150.0,
            random_loc_seed: 777,
            init_weights: false,
            n_frequency_pattern: Vec::new(),
            common: Common::default(),
        }
    }
}

json_settings!(FourierFtConfig);

impl FourierFtConfig {
    fn count_of(&self, path: &str) -> usize {
        exception(&self.n_frequency_pattern, path).unwrap_or(self.n_frequency)
    }
}

impl Method for FourierFtConfig {
    method!("FOURIERFT");

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let mut scaled = self.clone();
        scaled.scaling *= factor;
        Some(Box::new(scaled))
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let counts = self.n_frequency_pattern.iter().map(|(_, n)| n);
        if counts.chain([&self.n_frequency]).any(|n| *n == 0) {
            mistakes.push("n_frequency must be at least 1".to_string());
        }
        if !self.scaling.is_finite() {
            mistakes.push(format!("scaling must be finite, not {}", self.scaling));
        }
        mistakes
    }

    fn patterns(&self) -> Vec<(&'static str, &str)> {
        let names = self.n_frequency_pattern.iter();
        names.map(|(name, _)| ("n_frequency_pattern", name.as_str())).collect()
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("fourier_only")
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &[
            &["q_proj", "v_proj"],
            &["mlp.c_proj"],
            &["query", "value"],
            &["query_key_value"],
            &["qkv_proj"],
        ]
    }

    fn shared(&self, layers: &[Features], draw: &mut Draw<'_>) -> Result<Vec<AdapterTensor>> {
        let counts: BTreeSet<usize> = (self.n_frequency_pattern.iter())
            .map(|(_, n)| *n)
            .chain([self.n_frequency])
            .collect();
        let sizes: BTreeSet<(usize, usize)> = layers.iter().map(|f| (f.outputs, f.inputs)).collect();
        let mut tables = Vec::new();
        for (outputs, inputs) in sizes {
            // A number that is too large for its layer is reported when the layer gets its adapter.
            for n in counts.iter().filter(|n| **n <= outputs * inputs) {
                let size = Features { inputs, outputs };
                let (rows, columns) = self.waves(size, *n)?;
                let [rows_name, columns_name] = table_names(size, *n);
                for (name, waves) in [(rows_name, rows), (columns_name, columns)] {
                    let table = draw.tensor(waves.table(), [waves.height(), waves.length]);
                    tables.push(AdapterTensor::new(name, table).shared().unsaved());
                }
            }
        }
        Ok(tables)
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let size = site.features();
        let n = self.count_of(site.path);
        let all = size.inputs * size.outputs;
        if n > all {
            return Err(Error::Settings(format!(
                "n_frequency ({n}) is above the number of weights of {} ({all}): n_frequency_pattern sets it for single \
                 layers",
                site.path
            )));
        }
        let (rows, columns) = self.waves(size, n)?;
        let names = table_names(size, n);
        let spectrum = match self.init_weights {
            true => draw.zeros([n]),
            false => draw.normal([n], 1.0),
        };
        let mut tensors = vec![AdapterTensor::new(SPECTRUM, spectrum)];
        tensors.extend(names.iter().map(|name| site.shared(name)));
        let kind = FourierFt {
            scaling: self.scaling / all as f64,
            tables: names,
            coefficients: Coefficients::new(&rows, &columns),
        };
        Ok(NewAdapter::new(kind, tensors))
    }
}

impl FourierFtConfig {
    /// The waves of the rows and columns of a layer's spectrum.
    fn waves(&self, size: Features, n: usize) -> Result<(Waves, Waves)> {
        let all = size.inputs * size.outputs;
        if all >= TorchRandom::LONGEST {
            return Err(Error::Settings(format!(
                "a layer of {all} weights is too large for FourierFT: leave it out of target_modules"
            )));
        }
        let places = TorchRandom::new(self.random_loc_seed).permutation(all, n);
        let rows = places.iter().map(|place| place / size.inputs);
        let columns = places.iter().map(|place| place % size.inputs);
        Ok((Waves::new(rows, size.outputs), Waves::new(columns, size.inputs)))
    }
}

/// The names of the tables of rows and columns.
fn table_names(size: Features, n: usize) -> [String; 2] {
    let Features { inputs, outputs } = size;
    ["rows", "columns"].map(|side| format!("fourierft_{side}_{outputs}x{inputs}_{n}"))
}

/// The frequencies along one side of a spectrum. A frequency and its mirror image have the same cosine, and sines that
/// differ by their sign.
struct Waves {
    length: usize,
    /// Each frequency once, none above half the length.
    distinct: Vec<usize>,
    /// For each number of the spectrum the place of its frequency in `distinct`, and the sign of its sine.
    places: Vec<(usize, f32)>,
}

impl Waves {
    fn new(frequencies: impl Iterator<Item = usize>, length: usize) -> Self {
        let folded: Vec<(usize, f32)> = frequencies
            .map(|f| match 2 * f <= length {
                true => (f, 1.0),
                false => (length - f, -1.0),
            })
            .collect();
        let distinct: BTreeSet<usize> = folded.iter().map(|(f, _)| *f).collect();
        let distinct: Vec<usize> = distinct.into_iter().collect();
        let place = |f| distinct.partition_point(|other| *other < f);
        let places = folded.into_iter().map(|(f, sign)| (place(f), sign)).collect();
        Self {
            length,
            places,
            distinct,
        }
    }

    /// The rows of the table: cosines, then sines.
    fn height(&self) -> usize {
        2 * self.distinct.len()
    }

    fn table(&self) -> Vec<f32> {
        let waves = [f64::cos, f64::sin].into_iter();
        let rows = waves.flat_map(|wave| self.distinct.iter().map(move |f| (wave, *f)));
        let length = self.length;
        let numbers = rows.flat_map(|(wave, f)| {
            (0..length).map(move |u| wave(TAU * (f * u % length) as f64 / length as f64) as f32)
        });
        numbers.collect()
    }
}

/// Where the spectrum stands in the matrix of coefficients, `[rows' height, columns' height]`: each number at the product
/// of the cosines, and with a sign at that of the sines.
#[derive(Clone, Debug)]
struct Coefficients {
    shape: [usize; 2],
    places: Vec<i64>,
    signs: Vec<f32>,
}

impl Coefficients {
    fn new(rows: &Waves, columns: &Waves) -> Self {
        let width = columns.height();
        let (below, beside) = (rows.distinct.len(), columns.distinct.len());
        let pairs = || rows.places.iter().zip(&columns.places);
        let cosines = pairs().map(|(row, column)| row.0 * width + column.0);
        let sines = pairs().map(|(row, column)| (below + row.0) * width + beside + column.0);
        Self {
            shape: [rows.height(), width],
            places: cosines.chain(sines).map(|place| place as i64).collect(),
            // cos(α + β) = cos α cos β - sin α sin β
            signs: pairs().map(|(row, column)| -row.1 * column.1).collect(),
        }
    }

    /// The matrix of these numbers.
    fn fill(&self, spectrum: Tensor<1>) -> Tensor<2> {
        let device = spectrum.device();
        let signs = TensorData::new(self.signs.clone(), [self.signs.len()]);
        let signs = Tensor::<1>::from_data(signs, &device);
        let places = TensorData::new(self.places.clone(), [self.places.len()]);
        let places = Tensor::<1, Int>::from_data(places, &device);
        let numbers = Tensor::cat(vec![spectrum.clone(), spectrum * signs], 0);
        let [rows, columns] = self.shape;
        Tensor::<1>::zeros([rows * columns], &device)
            .select_assign(0, places, numbers, IndexingUpdateOp::Add)
            .reshape(self.shape)
    }
}

/// `[n_frequency]`.
const SPECTRUM: &str = "fourierft_spectrum";

/// `ΔW·x`, added to the product.
#[derive(Clone, Debug)]
struct FourierFt {
    /// `α/NM`
    scaling: f64,
    /// The names of the tables of rows and columns.
    tables: [String; 2],
    coefficients: Coefficients,
}

impl FourierFt {
    /// `ΔW`.
    fn delta(&self, adapter: &Adapter) -> Tensor<2> {
        let [rows, columns] = [0, 1].map(|i| adapter.val2(&self.tables[i]));
        let coefficients = self.coefficients.fill(adapter.val1(SPECTRUM) * self.scaling);
        rows.transpose().matmul(coefficients.matmul(columns))
    }
}

impl AdapterKind for FourierFt {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        y + ft_kernels::linear(x.clone(), self.delta(at.adapter), None)
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        Some(Merged {
            weight: merged.weight + self.delta(at.adapter),
            ..merged
        })
    }
}
