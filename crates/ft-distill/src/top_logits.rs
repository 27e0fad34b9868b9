//! The likeliest tokens of a teacher on disk, so that the training does without it.
//!
//! A folder has `manifest.json` and shards of a few hundred rows, `top-00000.safetensors` and so on, with the tensors `tokens`
//! and `logps`, `[positions, k]`. A row is found by a hash of its tokens and labels.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Tensor, TensorData, activation};
use ft_core::module_path::{PathVisitor, packed_weights, visit_params};
use ft_core::safetensors_folder::{read_metadata, read_tensors, write_json, write_tensors};
use ft_core::{CausalLm, Head, IGNORE_INDEX};
use ft_data::{Batch, Tokenized, collate_padded, fingerprint};
use ft_kernels::{Precision, precision};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Rows of a shard.
const SHARD: usize = 256;

/// The key in a shard's metadata of the hash of its manifest.
const MANIFEST: &str = "manifest";

/// Positions whose logits exist at a time.
const POSITIONS: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    k: usize,
    temperature: f64,
    /// Tokens of the teacher's vocabulary.
    vocab_size: usize,
    /// A hash of the teacher's settings and weights, or the address and name of a model on a server.
    teacher: String,
    /// A hash of each row, in order, and how many positions it has.
    rows: Vec<(String, usize)>,
}

impl Manifest {
    /// A hash of all that the numbers of a shard follow from.
    fn hash(&self) -> String {
        let text = serde_json::json!([self]).to_string();
        fingerprint(text.bytes().map(i64::from))
    }
}

/// The likeliest tokens of a teacher for the positions of some rows.
#[derive(Clone, Debug)]
pub struct TopLogits {
    k: usize,
    temperature: f64,
    vocab_size: usize,
    /// The positions of each row, by its hash.
    places: HashMap<String, Range<usize>>,
    tokens: Vec<i32>,
    logps: Vec<f32>,
}

/// Writes the `k` likeliest tokens of a teacher, with their log-probabilities at this temperature, for every position of the
/// rows whose next token has a label. What they leave out of the probability is known, since they are not scaled.
///
/// An interrupted run continues after the last whole shard. `listen` gets how many rows are done and how many there are.
///
/// # Errors
///
/// If `k` or the temperature makes no sense, the folder holds the tokens of another teacher, other rows or settings, or a file
/// cannot be written.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn write_top_logits<M: CausalLm>(
    teacher: &M,
    rows: &[Tokenized],
    k: usize,
    temperature: f64,
    batch_size: usize,
    folder: &Path,
    listen: &mut dyn FnMut(usize, usize),
) -> Result<TopLogits> {
    let teacher = teacher.valid();
    let source = Source {
        k,
        temperature,
        vocab_size: teacher.dims().vocab_size,
        teacher: match precision() {
            Precision::F32 => model_fingerprint(&teacher),
            rounded => format!("{} {rounded}", model_fingerprint(&teacher)),
        },
    };
    let of_rows = |rows: &[Tokenized]| Ok(of_rows(&teacher, rows, k, temperature, batch_size));
    write_shards(source, rows, folder, of_rows, listen)
}

/// Whose distributions a folder has, and what of them.
pub(crate) struct Source {
    pub(crate) k: usize,
    pub(crate) temperature: f64,
    pub(crate) vocab_size: usize,
    pub(crate) teacher: String,
}

/// Tokens and log-probabilities, `k` of each for every position.
pub(crate) type TopOfRows = (Vec<i32>, Vec<f32>);

/// Writes a folder; `of_rows` is asked for what a shard lacks.
pub(crate) fn write_shards(
    source: Source,
    rows: &[Tokenized],
    folder: &Path,
    mut of_rows: impl FnMut(&[Tokenized]) -> Result<TopOfRows>,
    listen: &mut dyn FnMut(usize, usize),
) -> Result<TopLogits> {
    let Source {
        k,
        temperature,
        vocab_size,
        teacher,
    } = source;
    let mut mistakes = Vec::new();
    if !(1..vocab_size).contains(&k) {
        mistakes.push(format!(
            "k must be from 1 to {}, not {k}",
            vocab_size.saturating_sub(1)
        ));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        mistakes.push(format!("temperature must be above 0, not {temperature}"));
    }
    if !mistakes.is_empty() {
        return Err(Error::Settings(mistakes));
    }
    let manifest = Manifest {
        k,
        temperature,
        vocab_size,
        teacher,
        rows: rows
            .iter()
            .map(|row| (key(&row.input_ids, &row.labels), row.label_count()))
            .collect(),
    };
    let hash = manifest.hash();
    let path = folder.join("manifest.json");
    // A manifest without shards is that of a run that got nothing.
    if path.is_file() && has_shards(folder) {
        let found = read_manifest(folder)?;
        if found != manifest {
            return Err(Error::TopLogits {
                path: folder.into(),
                reason: "holds the tokens of another teacher, of other rows or settings: give another folder, or remove it"
                    .into(),
            });
        }
    } else {
        write_json(&path, &manifest)?;
    }
    for (number, rows_of_shard) in rows.chunks(SHARD).enumerate() {
        let file = shard(folder, number);
        if !file.is_file() {
            let (tokens, logps) = of_rows(rows_of_shard)?;
            let shape = [logps.len() / k, k];
            let tensors = [
                ("tokens".to_string(), TensorData::new(tokens, shape)),
                ("logps".to_string(), TensorData::new(logps, shape)),
            ];
            let of = HashMap::from([(MANIFEST.to_string(), hash.clone())]);
            write_tensors(&file, &tensors, &of)?;
        }
        listen(
            (number * SHARD + rows_of_shard.len()).min(rows.len()),
            rows.len(),
        );
    }
    TopLogits::open(folder)
}

/// What a teacher finds likeliest.
fn of_rows<M: CausalLm>(
    teacher: &M,
    rows: &[Tokenized],
    k: usize,
    temperature: f64,
    batch_size: usize,
) -> TopOfRows {
    let device = teacher.devices().first().cloned().unwrap_or_default();
    let (mut tokens, mut logps) = (Vec::<i32>::new(), Vec::<f32>::new());
    for rows in rows.chunks(batch_size) {
        let batch = collate_padded(&rows.iter().collect::<Vec<_>>(), 1, 0);
        let hidden = teacher.hidden_states(&batch.tokens(&device), None);
        let places: Vec<i64> = positions(&batch).map(|place| place as i64).collect();
        let [count, seq, width] = hidden.dims();
        let hidden = hidden.reshape([count * seq, width]);
        for places in places.chunks(POSITIONS) {
            let places = Tensor::from_data(places, &device);
            let hidden = hidden.clone().select(0, places);
            let all = log_probabilities(teacher.head(), hidden, temperature);
            let rows: Vec<&[f32]> = all.chunks(teacher.dims().vocab_size).collect();
            let best: Vec<Vec<usize>> = rows.par_iter().map(|row| likeliest(row, k)).collect();
            for (row, best) in rows.into_iter().zip(best) {
                tokens.extend(best.iter().map(|&token| token as i32));
                logps.extend(best.iter().map(|&token| row[token]));
            }
        }
    }
    (tokens, logps)
}

fn log_probabilities(head: Head<'_>, hidden: Tensor<2>, temperature: f64) -> Vec<f32> {
    let logits = head.forward(hidden.unsqueeze::<3>()).squeeze_dim::<2>(0);
    let logps = activation::log_softmax(logits / temperature, 1);
    logps.into_data().iter::<f32>().collect()
}

/// The numbers of the `k` largest entries, the largest first, and of equal ones that with the lower number.
fn likeliest(row: &[f32], k: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| row[b].total_cmp(&row[a]).then(a.cmp(&b));
    let mut all: Vec<usize> = (0..row.len()).collect();
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
    all
}

impl TopLogits {
    /// Reads a folder that [`write_top_logits`] wrote.
    ///
    /// # Errors
    ///
    /// If a file is missing, damaged, of another manifest, or does not have as many positions as the rows.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = read_manifest(folder)?;
        let (k, hash) = (manifest.k, manifest.hash());
        if !(1..manifest.vocab_size).contains(&k) || manifest.vocab_size > i32::MAX as usize {
            return Err(Error::TopLogits {
                path: folder.join("manifest.json"),
                reason: format!("{k} of {} tokens makes no sense", manifest.vocab_size),
            });
        }
        let (mut tokens, mut logps) = (Vec::new(), Vec::new());
        let mut places = HashMap::new();
        let mut next = 0;
        for (number, rows) in manifest.rows.chunks(SHARD).enumerate() {
            for (key, positions) in rows {
                places.insert(key.clone(), next..next + positions);
                next += positions;
            }
            let path = shard(folder, number);
            let mut tensors = read_tensors(&path)?;
            let wrong = |reason: &str| Error::TopLogits {
                path: path.clone(),
                reason: format!("{reason}: remove the folder and write it again"),
            };
            if read_metadata(&path)?.get(MANIFEST) != Some(&hash) {
                return Err(wrong("belongs to another manifest.json"));
            }
            let mut take = |name: &str| tensors.remove(name).ok_or_else(|| wrong("lacks a tensor"));
            let (of_tokens, of_logps) = (take("tokens")?, take("logps")?);
            tokens.extend(of_tokens.iter::<i32>());
            logps.extend(of_logps.iter::<f32>());
            if tokens.len() != next * k || logps.len() != next * k {
                return Err(wrong("has another number of positions than its rows"));
            }
            let known = 0..manifest.vocab_size as i32;
            if of_tokens.iter::<i32>().any(|token| !known.contains(&token)) {
                return Err(wrong("has tokens beyond the vocabulary"));
            }
            // Rounding leaves a probability slightly above 1.
            if of_logps
                .iter::<f32>()
                .any(|logp| !(logp.is_finite() && logp < 1e-3))
            {
                return Err(wrong("has numbers that are no log-probabilities"));
            }
        }
        Ok(Self {
            k,
            temperature: manifest.temperature,
            vocab_size: manifest.vocab_size,
            places,
            tokens,
            logps,
        })
    }

    /// How many tokens a position has.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The temperature of the log-probabilities.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// How many tokens the teacher's vocabulary has.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How many positions there are.
    pub fn positions(&self) -> usize {
        self.tokens.len() / self.k
    }

    /// The mean of the probability that the tokens leave out.
    pub fn mean_rest(&self) -> f64 {
        let rest = self.logps.chunks(self.k).map(|logps| {
            let listed: f64 = logps.iter().map(|&logp| f64::from(logp).exp()).sum();
            (1.0 - listed).max(0.0)
        });
        rest.sum::<f64>() / self.positions().max(1) as f64
    }

    /// The tokens and log-probabilities of a padded batch, row by row.
    pub(crate) fn of(&self, batch: &Batch) -> Result<(Vec<i64>, Vec<f32>)> {
        let (mut tokens, mut logps) = (Vec::new(), Vec::new());
        let rows = batch
            .input_ids
            .chunks(batch.seq)
            .zip(batch.labels.chunks(batch.seq));
        for ((ids, labels), &length) in rows.zip(&batch.lengths) {
            let ids: Vec<u32> = ids[..length].iter().map(|&id| id as u32).collect();
            let Some(place) = self.places.get(&key(&ids, &labels[..length])) else {
                return Err(Error::Teacher(
                    "the teacher's likeliest tokens lack a row of the training data: write them for the same rows, and do not \
                     pack the rows"
                        .into(),
                ));
            };
            let place = place.start * self.k..place.end * self.k;
            tokens.extend(
                self.tokens[place.clone()]
                    .iter()
                    .map(|&token| i64::from(token)),
            );
            logps.extend_from_slice(&self.logps[place]);
        }
        Ok((tokens, logps))
    }
}

fn key(ids: &[u32], labels: &[i64]) -> String {
    let ids = ids.iter().map(|&id| i64::from(id));
    fingerprint(ids.chain(labels.iter().copied()))
}

/// The positions whose next token has a label, row by row.
fn positions(batch: &Batch) -> impl Iterator<Item = usize> + '_ {
    let rows = batch.labels.chunks(batch.seq).enumerate();
    rows.flat_map(move |(row, labels)| {
        let next = labels.iter().skip(1).enumerate();
        let counted = next.filter(|(_, label)| **label != IGNORE_INDEX);
        counted.map(move |(place, _)| row * batch.seq + place)
    })
}

fn shard(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("top-{number:05}.safetensors"))
}

/// Whether a folder holds the tokens of any row.
fn has_shards(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("top-") && name.ends_with(".safetensors")
    })
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.json");
    let wrong = |reason: String| Error::TopLogits {
        path: path.clone(),
        reason,
    };
    let bytes = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

/// A hash of the sizes and of a few numbers of each weight, which detects another model.
fn model_fingerprint<M: CausalLm>(model: &M) -> String {
    struct Sample(Vec<i64>);
    impl PathVisitor for Sample {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            let step = (data.num_elements() / 61).max(1);
            let numbers = data.iter::<f32>().step_by(step);
            self.0.extend(path.bytes().map(i64::from));
            self.0
                .extend(numbers.map(|number| i64::from(number.to_bits())));
        }
    }
    let sizes = format!("{:?}", model.dims());
    let mut sample = Sample(sizes.bytes().map(i64::from).collect());
    visit_params(model, &mut sample);
    for (path, packed) in packed_weights(model) {
        sample.0.extend(path.bytes().map(i64::from));
        let words = packed.packed().words().to_data();
        let step = (words.num_elements() / 61).max(1);
        sample.0.extend(words.iter::<i64>().step_by(step));
    }
    fingerprint(sample.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_equal_ones_by_number() {
        assert_eq!(likeliest(&[0.1, 0.5, -1.0, 0.5, 0.3], 3), [1, 3, 4]);
        assert_eq!(likeliest(&[2.0, 1.0], 1), [0]);
    }
}
